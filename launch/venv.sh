# Sourced by demo.sh and test.sh: an environment with the package in it.
#
#   PYTHON=python3.12   the interpreter to make it with
#   VENV=DIR            where it lies (default: .venv beside setup.cfg)
#
# Safe to stop and to repeat: it is made anew where it is not whole or of
# another Python than PYTHON names, and filled anew where setup.cfg has changed.

root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd)
case ${VENV:=$root/.venv} in
  /*) venv=$VENV ;;
  *) venv=$PWD/$VENV ;;
esac

fail() { echo "$(basename -- "$0"): $*" >&2; exit 2; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The Python that PYTHON names, else the first that is new enough.
find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    new_enough "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 or newer"
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 or newer found: install one, or name it with PYTHON="
}

whole() {
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
  [ -z "${PYTHON:-}" ] || [ "$(version "$venv/bin/python")" = "$(version "$PYTHON")" ]
}

# make_venv EXTRA: installs the package, editable, with an extra.
make_venv() {
  local python stamp wanted
  stamp=$venv/.installed-$1
  wanted=$(cksum <"$root/setup.cfg")
  if ! whole; then
    python=$(find_python) || exit 2
    echo "making $venv with $("$python" --version)" >&2
    "$python" -m venv --clear "$venv" ||
      fail "cannot make $venv (on Debian: apt install python3-venv)"
  fi
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "installing painformer_jax[$1] into $venv (a few minutes the first time)" >&2
    "$venv/bin/python" -m pip install --quiet --upgrade pip >&2 &&
      "$venv/bin/python" -m pip install --quiet -e "$root[$1]" >&2 ||
      fail "installing failed; see above"
    echo "$wanted" >"$stamp"
  fi
}
