#!/usr/bin/env bash
# Builds the wheel and the source archive and checks both.
#   bash launch/build.sh [DIR]        DIR gets the two files (default dist)
# Environment: VENV as in launch/install.sh; it needs tests/requirements.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="${1:-dist}"
python="${VENV:-.venv}/bin/python"
rm -rf build/lib build/bdist.*  # setuptools would pack modules of an earlier build that have since been removed
"$python" -m build --outdir "$out" .  # the wheel is built from the source archive, so both are complete
"$python" -m twine check --strict "$out"/deconvnet_jax-*
"${VENV:-.venv}/bin/check-wheel-contents" "$out"/deconvnet_jax-*.whl
