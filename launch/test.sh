#!/usr/bin/env bash
# Fresh machine -> environment -> test suite.
#   bash launch/test.sh [--reference] [PYTEST_ARGUMENT...]
# The inner loop while you write code:   bash launch/test.sh -m "not end_to_end"
# A nightly run with new random numbers: bash launch/test.sh --fresh-seeds
# --reference also installs PyTorch, against which layers and gradients are then tested (those tests skip without it),
# and checks types.
# Environment: VENV and PYTHON as in launch/install.sh; DECONVNET_TEST_DATA, a folder with real photographs and weights;
# WORKERS, how many processes run tests (default 2, each takes two cores and 7 GB at times).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
requirements=(tests/requirements.txt)
check_types=false
if [ "${1:-}" = "--reference" ]; then
  requirements+=(tests/requirements-reference.txt)
  check_types=true
  shift
fi
bash launch/install.sh "${requirements[@]}"
venv="${VENV:-.venv}"
"$venv/bin/python" -m ruff check .
"$venv/bin/python" -m ruff format --check --quiet . || { echo "error: run 'ruff format .'" >&2; exit 1; }
if "$check_types"; then
  "$venv/bin/python" -m basedpyright --pythonpath "$venv/bin/python" --level error
fi
# A crashed process ends the run: restarted ones would never be given anything to do with --dist=loadfile.
exec "$venv/bin/python" -m pytest --numprocesses="${WORKERS:-2}" --dist=loadfile --no-loadscope-reorder \
  --max-worker-restart=0 "$@"
