#!/usr/bin/env bash
# Tests this machine's GPU and compares its speed with PyTorch; writes report.md, report.json and logs to OUT.
#   bash launch/gpu_report.sh [OUT] [FLAG...]      OUT is a new folder (default runs/gpu_report)
#   GPU_REPORT_WIDTH=0.125 bash launch/gpu_report.sh runs/rehearsal --allow_cpu --minutes=20      on a CPU
# It takes at most nine minutes (--minutes). If you stop it, the results of the finished parts stay in OUT.
# Install first (5 minutes):
#   bash launch/install.sh tests/requirements.txt tests/requirements-reference.txt
#   .venv/bin/pip install "jax[cuda13]==$(.venv/bin/python -c 'import jax; print(jax.__version__)')"
#   .venv/bin/pip install pydensecrf2==1.1         # needs a C++ compiler; without it the CRF is not compared
# On Linux, PyTorch from pip includes CUDA. Without PyTorch or pytest, the parts that need them are skipped and say so.
# Environment: PYTHON, the interpreter (default: that of the environment VENV, by default .venv); GPU_REPORT_WIDTH, the
# network's width from above 0 to 1 (default 1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="runs/gpu_report"
if [ $# -gt 0 ] && [[ "$1" != -* ]]; then
  out="$1"
  shift
fi
exec "${PYTHON:-${VENV:-.venv}/bin/python}" -m experiments.gpu_report "--output=$out" \
  "--width=${GPU_REPORT_WIDTH:-1}" "$@"
