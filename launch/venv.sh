# Sourced by demo.sh and test.sh: an environment with the package in it.
#
#   PYTHON=python3.12   the interpreter to make it with
#   VENV=DIR            where it lies (default: .venv beside setup.cfg)
#
# Safe to repeat: it is made and filled only where setup.cfg has changed since.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}

fail() { echo "$(basename "$0"): $*" >&2; exit 2; }

# The first Python that is new enough, unless PYTHON names one.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found (${PYTHON:-looked for python3 to python3.13}); set PYTHON="
}

# make_venv EXTRA: installs the package, editable, with an extra.
make_venv() {
  local python stamp wanted
  stamp=$venv/.installed-$1
  wanted=$(cksum <"$root/setup.cfg")
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || exit 2
    echo "making $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv" || fail "cannot make $venv (on Debian: apt install python3-venv)"
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing painformer_jax[$1] into $venv (a few minutes the first time)" >&2
    "$venv/bin/python" -m pip install --quiet --upgrade pip >&2 &&
      "$venv/bin/python" -m pip install --quiet -e "$root[$1]" >&2 ||
      fail "installing failed; see above"
    echo "$wanted" >"$stamp"
  fi
}
