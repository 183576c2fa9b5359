#!/usr/bin/env bash
# Trains on all accelerators of this host. A crash does not end it: it goes on from the last checkpoint.
#   bash launch/local.sh [--dry-run] CONFIG WORKDIR [FLAG...]
#   bash launch/local.sh voc_stage1 runs/mine --config.data.voc_root=my_data --config.init.vgg16=vgg16-397923af.pth
# CONFIG is a name in experiments/configs. --dry-run prints the command instead. What it says also goes to WORKDIR/log.txt;
# SIGTERM and Ctrl-C save and end it.
# Environment: VENV, the folder of the environment (default .venv); RESTARTS, after how many crashes to give up (default 3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dry_run=""
if [ "${1:-}" = "--dry-run" ]; then
  dry_run=yes
  shift
fi
if [ $# -lt 2 ] || [[ "$1$2" == *--* ]]; then
  echo "usage: bash launch/local.sh [--dry-run] CONFIG WORKDIR [FLAG...]" >&2
  exit 2
fi
config="experiments/configs/${1%.py}.py" workdir="$2"
shift 2
if [ ! -f "$config" ]; then
  echo "error: there is no $config; the configs are $(grep -l "def get_config" experiments/configs/*.py | xargs basename -a -s .py | paste -sd ' ')" >&2
  exit 2
fi
command=("${VENV:-.venv}/bin/python" -m experiments.voc_train "--config=$config" "--workdir=$workdir" "$@")
if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
mkdir -p "$workdir"
exec > >(tee -a "$workdir/log.txt") 2>&1

training=""
pass_on() {
  stopping=yes
  [ -z "$training" ] || kill -TERM "$training" 2>/dev/null || true
}
stopping=""
trap pass_on TERM INT
for ((crashes = 0; ; crashes++)); do
  "${command[@]}" &
  training=$!
  status=0
  wait "$training" || status=$?
  while kill -0 "$training" 2>/dev/null; do # the signal ended the waiting, not the training
    status=0
    wait "$training" || status=$?
  done
  # Above 128: killed by a signal, most often for want of memory. Anything else is an answer, which would be the same again.
  if [ "$status" -le 128 ] || [ -n "$stopping" ] || [ "$crashes" -ge "${RESTARTS:-3}" ]; then
    exit "$status"
  fi
  echo "local.sh: the training was killed by signal $((status - 128)); it starts again from its last checkpoint" >&2
done
