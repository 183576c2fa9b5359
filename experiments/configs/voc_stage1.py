"""Stage 1 of the paper: one crop around every object, the object's class against background.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=
    python -m experiments.voc_train --config=experiments/configs/voc_stage1.py --workdir=runs/voc_stage1 \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

or, on a folder in the VOC layout, --config.data.voc_root=FOLDER instead of the second line's flags.

Paper, section 4.2 and the released solver (training/001_stage_1/solver.prototxt): 20,000 steps of 64 crops, momentum
0.9, weight decay 0.0005, learning rate 0.01, divided by 10 at 9,000 and 18,000. Section 4.1: examples of rare classes
are repeated, to 0.2 million; all classes as often as persons is that number. Batch statistics are those of each
device's crops. Cost: 196 GFLOP a crop, 1.28 million crops. Needs an accelerator; not yet run by us.
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
    """The defaults, and rare classes repeated."""
    config = default.get_config()
    config.data.balance = 1.0
    return config
