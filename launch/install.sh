#!/usr/bin/env bash
# Creates a virtual environment and installs the project in it, with the versions it was tested with.
#   bash launch/install.sh [REQUIREMENTS_FILE...]      also installs the packages in these files
# Environment: VENV, the folder of the environment (default .venv); PYTHON, the interpreter (default: the first one found
# that is 3.11 or newer).
# JAX_VERSION, another JAX than that of requirements.txt: "oldest" (the oldest supported one), "newest" (the newest
# release for this Python), "nightly", or a number such as 0.10.1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="${VENV:-.venv}"

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer found; install one, or give its path: PYTHON=/path/to/python bash $0" >&2
  exit 1
}

python="$(find_python)"
if [ ! -x "$venv/bin/python" ]; then
  echo "creating the environment $venv with $("$python" --version)"
  "$python" -m venv "$venv" || {
    echo "error: $python cannot create virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
fi
arguments=(-r requirements.txt)
for file in "$@"; do arguments+=(-r "$file"); done
echo "installing packages (takes a minute or two the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
# In the folder that holds this one, Python would take this folder, which has the package's name, for the package.
"$venv/bin/python" -c 'import os, pathlib, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "deconvnet_jax_folder.pth").write_text(os.getcwd() + "\n")'
oldest="$(sed -n 's/^ *"jax>=\(.*\)",$/\1/p' pyproject.toml)"
case "${JAX_VERSION:-}" in
  "") jax=() ;;
  oldest) jax=("jax==$oldest.0" "jaxlib==$oldest.0") ;;
  newest) jax=(--upgrade jax jaxlib) ;;
  nightly) jax=(--upgrade --pre jax jaxlib --extra-index-url https://us-python.pkg.dev/ml-oss-artifacts-published/jax/simple/) ;;
  *) jax=("jax==$JAX_VERSION" "jaxlib==$JAX_VERSION") ;;
esac
if [ ${#jax[@]} -gt 0 ]; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${jax[@]}"
fi
