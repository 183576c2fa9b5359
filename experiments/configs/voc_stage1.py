"""Stage 1 of the paper on VOC 2012 and SBD: one crop around every object, its class against background.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=
    python -m experiments.voc_train --config=voc_stage1 --workdir=runs/voc_stage1 \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

For your own folder in the VOC layout, replace the three --config.data flags by --config.data.voc_root=FOLDER.

Sources of the numbers:

- Paper, section 6.1: 20,000 steps of 64 crops, momentum 0.9, weight decay 0.0005, learning rate 0.01.
- Released solver (training/001_stage_1/solver.prototxt): drops of the learning rate at 9,000 and 18,000 steps. In the
  paper the validation accuracy decides when it drops: --config.optimizer.schedule=plateau.
- Released solver: batch statistics of 8 crops, about which the paper says nothing. They do not depend on the number of
  devices, as long as it divides 64.
- Paper, section 6.1: examples of rare classes are repeated, up to 0.2 million crops. Repeating all classes until they
  are as frequent as persons gives about this number (`data.balance`).

Cost: 251 PFLOP (196 GFLOP per crop, 1.28 million crops), 3 hours at 25 TFLOP/s. Expected: the paper reports no score
after stage 1. Another user's log of the original, with a quarter of the crops, ends at a pixel accuracy of 87 % on
them. We have not trained it yet: VOC's images were not available to us.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: the defaults with repeated rare classes and batch statistics of 8 crops."""
    config = default.get_config()
    config.data.balance = 1.0
    config.bn_group = 8
    return config
