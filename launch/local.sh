#!/usr/bin/env bash
# Trains on all accelerators of this host, and restarts a crashed training from its last checkpoint.
#   bash launch/local.sh [--dry-run] CONFIG WORKDIR [FLAG...]
#   bash launch/local.sh voc_stage1 runs/mine --config.data.voc_root=my_data --config.init.vgg16=vgg16-397923af.pth
# CONFIG is a config's name or its file; FLAGs go to experiments.voc_train. --dry-run prints the command instead of
# running it. Output also goes to WORKDIR/log.txt, or to a file in runs/ if WORKDIR is in a bucket (gs://). SIGTERM and
# Ctrl-C save a checkpoint and end the training.
# Environment: VENV, the folder of the environment (default .venv); RESTARTS, the number of restarts after crashes
# (default 3).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dry_run=""
if [ "${1:-}" = "--dry-run" ]; then
  dry_run=yes
  shift
fi
if [ $# -lt 2 ] || [[ "$1" == --* || "$2" == --* ]]; then
  echo "usage: bash launch/local.sh [--dry-run] CONFIG WORKDIR [FLAG...]" >&2
  exit 2
fi
if [[ ! "${RESTARTS:-3}" =~ ^[0-9]+$ ]]; then
  echo "error: RESTARTS=$RESTARTS: expected a whole number" >&2
  exit 2
fi
config="$1" workdir="$2"
shift 2
if [ ! -f "$config" ] && [ ! -f "experiments/configs/${config%.py}.py" ]; then
  echo "error: no file $config or experiments/configs/${config%.py}.py; give a config's name or its file as CONFIG" >&2
  exit 2
fi
command=("${VENV:-.venv}/bin/python" -m experiments.voc_train "--config=$config" "--workdir=$workdir" "$@")
if [ -n "$dry_run" ]; then
  printf '%q ' "${command[@]}"
  echo
  exit
fi
log="$workdir/log.txt"
if [[ "$workdir" == gs://* ]]; then
  log="${workdir#gs://}" && log="${log%/}"
  log="runs/${log//\//-}.log"
  echo "local.sh: output also goes to $PWD/$log" >&2
fi
mkdir -p "$(dirname "$log")"
exec > >(tee -a "$log") 2>&1

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
  while kill -0 "$training" 2>/dev/null; do # The signal interrupted `wait`, but the training still runs.
    status=0
    wait "$training" || status=$?
  done
  # A status above 128 means that a signal killed the training, usually because memory ran out. Any other failure would
  # happen again, so there is no restart.
  if [ "$status" -le 128 ] || [ -n "$stopping" ] || [ "$crashes" -ge "${RESTARTS:-3}" ]; then
    exit "$status"
  fi
  echo "local.sh: the training was killed by signal $((status - 128)); restarting it from its last checkpoint" >&2
done
