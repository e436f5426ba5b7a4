#!/usr/bin/env bash
# Runs the tests, in an environment it makes itself: launch/test.sh [pytest arguments]
set -euo pipefail
. "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
make_venv test
cd -- "$root" >/dev/null
exec "$venv/bin/python" -m pytest "$@"
