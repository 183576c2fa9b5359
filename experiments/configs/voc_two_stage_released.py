"""Both stages as the released solver trains, one command.

    python -m experiments.voc_train --config=experiments/configs/voc_two_stage_released.py --workdir=runs/voc_released \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

Stage 1 in WORKDIR/stage1, stage 2 in WORKDIR, as voc_two_stage; sources: voc_stage1_released.py.
"""

import ml_collections

from . import stages, voc_stage1_released, voc_stage2_released


def get_config() -> ml_collections.ConfigDict:
    """Stage 2 with stage 1 inside."""
    return stages.after(voc_stage1_released.get_config(), voc_stage2_released.get_config())
