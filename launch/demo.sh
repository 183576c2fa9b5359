#!/usr/bin/env bash
# Fresh machine -> environment -> a small DeconvNet trained, evaluated and pictured, on data it draws itself.
#   bash launch/demo.sh [DIR]        results go to DIR (default runs/demo); run again, it continues or ends at once
# Environment: VENV and PYTHON as in launch/install.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run="${1:-runs/demo}"
bash launch/install.sh
python="${VENV:-.venv}/bin/python"

"$python" -m experiments.prepare_data --dataset=scenes --data_dir="$run/data"
"$python" -m experiments.voc_train --config=experiments/configs/demo.py --workdir="$run" \
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
{100 * scores["pixel_accuracy"]:.1f} % on {scores["images"]} scenes it never saw.
Pictures: {run}/predictions (photograph, prediction, overlay), {run}/evaluation (all scenes, with the truth)
Curves:   {run}/metrics.jsonl, or: tensorboard --logdir {run}/tensorboard""")
PYTHON
