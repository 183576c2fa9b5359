"""Stage 1 of the paper: one crop around every object, the object's class against background.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=
    python -m experiments.voc_train --config=experiments/configs/voc_stage1.py --workdir=runs/voc_stage1 \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

or, on a folder in the VOC layout, --config.data.voc_root=FOLDER instead of the flags of data.

Where the numbers are from: 20,000 steps of 64 crops, momentum 0.9, weight decay 0.0005, learning rate 0.01: paper,
section 4.2; its drops at 9,000 and 18,000: the released solver (training/001_stage_1/solver.prototxt; the paper lets
validation decide: --config.optimizer.schedule=plateau). Batch statistics of 8 crops: the released solver, the paper
does not say; they do not depend on the number of devices, as long as it divides 64. Examples of rare classes are
repeated, to 0.2 million: section 4.1; all classes as often as persons is that number.

Cost: 196 GFLOP a crop, 1.28 million crops, 251 PFLOP: 3 hours at 25 TFLOP/s. Expected: the paper gives no score after
stage 1; a log of the original on a quarter of the crops, by another user, ends at 87 % of their pixels. Not yet run by
us: it needs an accelerator and VOC.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """The defaults, on VOC with SBD, rare classes repeated."""
    config = default.get_config()
    config.data.balance = 1.0
    config.bn_group = 8
    return config
