#!/usr/bin/env bash
# Makes a virtual environment and installs the project with its tested versions; the other scripts call it.
#   bash launch/install.sh [REQUIREMENTS_FILE...]
# Environment: VENV, the folder to make (default .venv); PYTHON, the interpreter (default: the first of 3.11 or newer).
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
  echo "error: no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python bash $0" >&2
  exit 1
}

python="$(find_python)"
if [ ! -x "$venv/bin/python" ]; then
  echo "making the environment $venv with $("$python" --version)"
  "$python" -m venv "$venv" || {
    echo "error: $python cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
  }
fi
arguments=(-r requirements.txt)
for file in "$@"; do arguments+=(-r "$file"); done
echo "installing (a minute or two the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
