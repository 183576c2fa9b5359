#!/usr/bin/env bash
# Installs the project, then trains a small DeconvNet on drawn scenes, scores it and saves pictures.
#   bash launch/demo.sh [DIR]        writes to DIR (default runs/demo)
# The same command resumes after an interruption. After a finished run it only predicts and draws again.
# Environment: VENV and PYTHON, as in launch/install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run="${1:-runs/demo}"
bash launch/install.sh
python="${VENV:-.venv}/bin/python"

"$python" -m experiments.prepare_data --dataset=scenes --data_dir="$run/data"
"$python" -m experiments.voc_train --config=demo --workdir="$run" \
  --config.data.voc_root="$run/data/scenes" --config.data.data_dir="$run/data/tfds"
"$python" -m experiments.voc_eval --checkpoint="$run/checkpoints" --output="$run/evaluation"
mapfile -t images < <(sed -n "1,4s|.*|$run/data/scenes/JPEGImages/&.jpg|p" "$run/data/scenes/ImageSets/Segmentation/val.txt")
"$python" -m experiments.predict --checkpoint="$run/checkpoints" --output="$run/predictions" "${images[@]}"

"$python" - "$run" <<'PYTHON'
import json
import sys

run = sys.argv[1]
scores = json.load(open(f"{run}/evaluation/metrics.json"))
print(f"""
The demo's network reaches a mean IoU of {100 * scores["mean_iou"]:.1f} % and a pixel accuracy of \
{100 * scores["pixel_accuracy"]:.1f} % on {scores["images"]} held-out scenes.
Pictures: {run}/predictions (photograph, prediction, overlay), {run}/evaluation (all scenes, with the ground truth)
Curves:   {run}/metrics.jsonl, or: tensorboard --logdir {run}/tensorboard""")
PYTHON
