#!/usr/bin/env bash
# Runs the tests, in an environment it makes itself: launch/test.sh [pytest arguments]
#
#   launch/test.sh --all        the slow ones too (an hour); prints what each file took
#   WORKERS=4 launch/test.sh    files of tests that run at a time (default: 2)
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
make_venv test
cd -- "$root" >/dev/null
# By file, since fixtures that train or compile are shared within one; the longest file first.
exec "$venv/bin/python" -m pytest -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
