"""Stage 1 of the paper: one crop per object instance, the object's class against background.

    python -m experiments.voc_train --config=experiments/configs/voc_stage1.py --workdir=runs/voc_stage1 \
        --config.data.voc_root=VOCdevkit/VOC2012 --config.init.vgg16=vgg16-397923af.pth

Paper, section 4.2 and the released solver (training/001_stage_1/solver.prototxt): 20,000 steps of 64 crops, momentum
0.9, weight decay 0.0005, learning rate 0.01, divided by 10 at 9,000 and 18,000. Batch statistics are those of each
device's crops. Cost: 196 GFLOP a crop, 1.28 million crops. Needs an accelerator; not yet run by us.
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
    """The defaults are this experiment."""
    return default.get_config()
