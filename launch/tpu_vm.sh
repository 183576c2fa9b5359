#!/usr/bin/env bash
# Trains on a Cloud TPU slice of any number of hosts, and resumes on a new TPU after a preemption.
#   bash launch/tpu_vm.sh [--dry-run] create | setup | status | delete
#   bash launch/tpu_vm.sh [--dry-run] run | keep CONFIG WORKDIR [FLAG...]
#     create   creates the TPU
#     setup    copies the last commit of this repository to all hosts and installs it
#     run      starts the training on all hosts
#     keep     does all three, again after each preemption, until the training ends
#     status   shows the TPU's state and the end of the log
#     delete   deletes the TPU
# Example:
#   TPU=mine ZONE=us-central2-b TYPE=v4-32 SHARE=10.0.0.2:/share SPOT=yes bash launch/tpu_vm.sh keep voc_two_stage runs/voc \
#       --config.data.dataset=voc2012 --config.data.data_dir=/mnt/share/tfds --config.data.train_split=train_aug \
#       --config.init.vgg16=/mnt/share/vgg16-397923af.pth
# CONFIG is a config's name or its file in this repository; FLAGs go to experiments.voc_train. All hosts write one
# checkpoint, so they need a common file system: either SHARE, an NFS export (Filestore) that all hosts mount as /mnt/share,
# with WORKDIR relative to it; or a bucket, with WORKDIR=gs://BUCKET/NAME and SHARE=none. config.data.data_dir,
# config.init_from and config.init.vgg16 may be in the bucket too.
# Environment, required: TPU (its name), ZONE, SHARE (not for keep with a bucket).
# Environment, optional:
#   TYPE        default v4-8; v5litepod-16 (v5e), v5p-32, v6e-16 and so on
#   VERSION     the TPU's software; the default is that of the type, for example v2-alpha-tpuv6e for v6e
#   SPOT=yes    a cheaper TPU that may be preempted
#   QUEUE=yes   requests the TPU as a queued resource, which waits in a queue until there is room
#   NETWORK, SUBNETWORK   the VPC network, for projects without the network "default"
#   PROJECT     the Google Cloud project
#   POLL        seconds between checks (default 60)
# --dry-run prints the gcloud commands instead of running them; for keep, those of one round.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dry_run=""

usage() {
  sed -n '3,4s/^# *//p' launch/tpu_vm.sh >&2
  exit 2
}

fail() { # MESSAGE
  echo "error: $1" >&2
  exit 2
}

gcloud_tpus() { # tpu-vm | queued-resources VERB [ARGUMENT...]
  local line=(gcloud compute tpus "$@" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"})
  if [ -n "$dry_run" ]; then
    printf '%q ' "${line[@]}"
    echo
  else
    "${line[@]}"
  fi
}

on_hosts() { # WHICH COMMAND
  gcloud_tpus tpu-vm ssh "$TPU" "--worker=$1" "--command=$2"
}

yes_or_no() { # NAME; prints yes, or nothing for no and for a variable that is not set
  case "${!1:-no}" in
    yes) echo yes ;;
    no) ;;
    *) fail "$1=${!1}: expected yes or no" ;;
  esac
}

runtime_of() { # TYPE; prints the software that Google names for PyTorch and JAX on this type
  case "$1" in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
  esac
}

create() {
  local type="${TYPE:-v4-8}"
  local options=("--accelerator-type=$type" ${spot:+--spot} ${NETWORK:+"--network=$NETWORK"}
    ${SUBNETWORK:+"--subnetwork=$SUBNETWORK"})
  local version="${VERSION:-$(runtime_of "$type")}"
  if [ -n "$queue" ]; then
    gcloud_tpus queued-resources create "$TPU" "--node-id=$TPU" "--runtime-version=$version" "${options[@]}"
  else
    gcloud_tpus tpu-vm create "$TPU" "--version=$version" "${options[@]}"
  fi
}

delete() {
  if [ -n "$queue" ]; then
    gcloud_tpus queued-resources delete "$TPU" --force --quiet # --force also deletes the TPU
  else
    gcloud_tpus tpu-vm delete "$TPU" --quiet
  fi
}

setup() {
  # Ubuntu on the TPU's hosts has Python 3.10, which is too old.
  local mount="sudo mkdir -p /mnt/share && { mountpoint -q /mnt/share || sudo mount -o hard $SHARE /mnt/share; }"
  [ "$SHARE" != none ] || mount=""
  git archive --format=tgz --output="$temporary/deconvnet_jax.tgz" HEAD &&
    gcloud_tpus tpu-vm scp "$temporary/deconvnet_jax.tgz" "$TPU:deconvnet_jax.tgz" --worker=all &&
    on_hosts all "set -e
sudo add-apt-repository -y ppa:deadsnakes/ppa
sudo apt-get install -y -qq nfs-common python3.12 python3.12-venv
$mount
mkdir -p deconvnet_jax && tar -xzf deconvnet_jax.tgz -C deconvnet_jax && cd deconvnet_jax
PYTHON=python3.12 bash launch/install.sh
.venv/bin/pip install --quiet \"jax[tpu]==\$(.venv/bin/python -c 'import jax; print(jax.__version__)')\" gcsfs"
}

run() { # CONFIG WORKDIR [FLAG...]
  local training workdir="/mnt/share/$2"
  [[ "$2" != gs://* ]] || workdir="$2"
  printf -v training '%q ' .venv/bin/python -m experiments.voc_train "--config=$1" \
    "--workdir=$workdir" "${@:3}"
  printf -v training '%q' "$training; echo \$? >status"
  on_hosts all "cd deconvnet_jax && rm -f status && (setsid nohup bash -c $training >log.txt 2>&1 </dev/null &)"
}

described() { # tpu-vm | queued-resources FIELD; prints the state, or GONE; nothing if Google does not answer
  gcloud_tpus "$1" describe "$TPU" "--format=value($2)" 2>"$temporary/error" && return
  if grep -q NOT_FOUND "$temporary/error"; then echo GONE; else cat "$temporary/error" >&2; fi
}

state() { # prints the TPU's state; without a TPU, that of its request in the queue
  local now
  now="$(described tpu-vm state)"
  if [ "$now" = GONE ] && [ -n "$queue" ]; then
    described queued-resources state.state
  else
    echo "$now"
  fi
}

training_status() { # prints running, absent or the exit status; nothing if the host does not answer
  on_hosts 0 "cat deconvnet_jax/status 2>/dev/null || (pgrep -f '[e]xperiments.voc_train' >/dev/null && echo running) ||
echo absent" 2>/dev/null | tail -n 1 || true
}

keep() {
  local now
  while true; do
    now="$(state)"
    case "$now" in
      READY)
        now="$(training_status)"
        if [ "$now" = absent ]; then
          { setup && run "$@"; } || echo "tpu_vm.sh: setup or start failed on $TPU; trying again" >&2
        elif [[ "$now" =~ ^[0-9]+$ ]]; then
          on_hosts 0 "tail -n 5 deconvnet_jax/log.txt"
          exit "$now"
        fi
        ;;
      PREEMPTED | TERMINATED | STOPPED | SUSPENDED | FAILED) # the last two: of a request in the queue
        echo "tpu_vm.sh: $TPU is $now; creating a new TPU, where the training resumes from its last checkpoint" >&2
        delete || true
        ;;
      GONE) create || echo "tpu_vm.sh: no TPU is available now; trying again in ${POLL:-60} seconds" >&2 ;;
    esac
    sleep "${POLL:-60}"
  done
}

if [ "${1:-}" = "--dry-run" ]; then
  dry_run=yes
  shift
fi
spot="$(yes_or_no SPOT)"
queue="$(yes_or_no QUEUE)"
[[ "${POLL:-60}" =~ ^[0-9]+$ ]] || fail "POLL=$POLL: expected a whole number of seconds"
verb="${1:-}"
shift || usage
case "$verb" in
  create | setup | status | delete) [ $# -eq 0 ] || usage ;;
  run | keep)
    [[ $# -ge 2 && "$1" != --* && "$2" != --* ]] || usage
    [ -f "$1" ] || [ -f "experiments/configs/${1%.py}.py" ] ||
      fail "no file $1 or experiments/configs/${1%.py}.py; give a config's name or its file as CONFIG"
    ;;
  *) usage ;;
esac
[[ "$verb" != keep || "$2" != gs://* ]] || SHARE="${SHARE:-none}"
for name in TPU ZONE SHARE; do
  if [ -z "${!name:-}" ] && { [ "$name" != SHARE ] || [[ "$verb" =~ setup|keep ]]; }; then
    fail "$name is not set; set this environment variable as the first lines of launch/tpu_vm.sh explain"
  fi
done
[ -n "${VERSION:-}" ] || [ -n "$(runtime_of "${TYPE:-v4-8}")" ] || [[ ! "$verb" =~ create|keep ]] ||
  fail "no software is known for TYPE=$TYPE; expected v2-N, v3-N, v4-N, v5litepod-N, v5p-N or v6e-N, or set VERSION"
temporary="$(mktemp -d)"
trap 'rm -rf "$temporary"' EXIT
case "$verb" in
  create | setup | run | delete) "$verb" "$@" ;;
  keep)
    if [ -n "$dry_run" ]; then
      create
      setup
      run "$@"
    else
      keep "$@"
    fi
    ;;
  status)
    gcloud_tpus tpu-vm describe "$TPU" "--format=value(state)" ||
      { [ -n "$queue" ] && gcloud_tpus queued-resources describe "$TPU" "--format=value(state.state)" && exit; }
    on_hosts 0 "tail -n 20 deconvnet_jax/log.txt"
    ;;
esac
