"""Both stages in one command, as the released solver trains them where that differs from the paper.

    python -m experiments.voc_train --config=voc_two_stage_released --workdir=runs/voc_released \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

Stage 1 goes to WORKDIR/stage1 and stage 2 to WORKDIR, as in voc_two_stage.py. Sources and differences:
voc_stage1_released.py. Cost and expected result are those of voc_two_stage.py. We have not trained it yet.
"""

import ml_collections

from . import stages, voc_stage1_released, voc_stage2_released


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of stage 2 with stage 1 in its section "stage1"."""
    return stages.after(voc_stage1_released.get_config(), voc_stage2_released.get_config())
