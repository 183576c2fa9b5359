#!/usr/bin/env bash
# Ten minutes on a GPU: tests, speed beside PyTorch, repeatability -> report.md, report.json and logs.
#   bash launch/gpu_report.sh [OUT] [FLAG...]      OUT is a new folder (default runs/gpu_report)
#   GPU_REPORT_WIDTH=0.125 bash launch/gpu_report.sh runs/rehearsal --allow_cpu --minutes=20      on a CPU
# It ends within nine minutes (--minutes); what has finished is kept if it is stopped. Install before, in 5 minutes:
#   bash launch/install.sh tests/requirements.txt tests/requirements-reference.txt
#   .venv/bin/pip install "jax[cuda13]==$(.venv/bin/python -c 'import jax; print(jax.__version__)')"
#   .venv/bin/pip install pydensecrf2==1.1         # needs a C++ compiler; without it the CRF has no alternative
# On Linux, pip's PyTorch brings CUDA. Without PyTorch or pytest the parts that need them say so, and the others run.
# Environment: PYTHON, the interpreter (default: that of VENV, which is .venv by default); GPU_REPORT_WIDTH (default 1).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="runs/gpu_report"
if [ $# -gt 0 ] && [[ "$1" != -* ]]; then
  out="$1"
  shift
fi
exec "${PYTHON:-${VENV:-.venv}/bin/python}" -m experiments.gpu_report "--output=$out" \
  "--width=${GPU_REPORT_WIDTH:-1}" "$@"
