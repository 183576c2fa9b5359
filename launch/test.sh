#!/usr/bin/env bash
# Installs what the tests need, checks the style and runs the test suite.
#   bash launch/test.sh [--reference] [PYTEST_ARGUMENT...]
#   bash launch/test.sh -m "not end_to_end"      quick tests, while you write code
#   bash launch/test.sh --fresh-seeds            new random numbers, for a nightly run
# --reference also installs PyTorch, runs the tests that compare layers and gradients with it, and checks types. Without
# PyTorch those tests are skipped.
# Environment: VENV and PYTHON, as in launch/install.sh; DECONVNET_TEST_DATA, a folder with real photographs and weights;
# WORKERS, the number of test processes (default 2; each needs two cores and up to 7 GB).
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
"$venv/bin/python" -m ruff format --check --quiet . || { echo "error: some files are not formatted; run 'ruff format .'" >&2; exit 1; }
if "$check_types"; then
  "$venv/bin/python" -m basedpyright --project pyproject.toml --pythonpath "$venv/bin/python" --level error
fi
# A crashed worker ends the run, because --dist=loadfile never gives any tests to a restarted worker.
exec "$venv/bin/python" -m pytest --numprocesses="${WORKERS:-2}" --dist=loadfile --no-loadscope-reorder \
  --max-worker-restart=0 "$@"
