# Sourced by bin/demo, bin/test and .ci/run, with the working directory at the checkout's root.
# MORPH_VENV: where the virtual environment lies (.venv). MORPH_PYTHON: the Python that makes it.
# MORPH_CONSTRAINTS: the versions that are installed there.
# shellcheck shell=sh

venv="${MORPH_VENV:-.venv}"

# Prints the first Python that is new enough and really runs: a pyenv shim can be on PATH for a
# version that is not active, and Debian's python3 can lack venv.
find_python() {
  for candidate in ${MORPH_PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "No Python >= 3.11 with venv found (tried: ${MORPH_PYTHON:-python3.13 python3.12 python3.11 python3})." >&2
  echo "Install one, or name it: MORPH_PYTHON=/path/to/python $0" >&2
  return 1
}

# Prints the file with the versions that a Python gets: JAX 0.11 and later ask for 3.12.
constraints_of() {
  if [ -n "${MORPH_CONSTRAINTS:-}" ]; then
    echo "$MORPH_CONSTRAINTS"
  elif "$1" -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
    echo constraints-newest.txt
  else
    echo constraints.txt
  fi
}

# ensure_venv EXTRAS: makes $venv and installs this checkout there with the extras, unless that
# was done before with the same pyproject.toml and constraints.
ensure_venv() {
  stamp="$venv/morph-$1.stamp"
  wanted="$(cat pyproject.toml constraints*.txt | cksum) ${MORPH_CONSTRAINTS:-} $PWD"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    return
  fi
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    python="$(find_python)" || return 1
    echo "Making $venv with $python ..." >&2
    "$python" -m venv --clear "$venv" || return 1
  fi
  echo "Installing morph-jax[$1] into $venv (minutes the first time, once) ..." >&2
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    -e ".[$1]" -c "$(constraints_of "$venv/bin/python")" || return 1
  echo "$wanted" >"$stamp"
}
