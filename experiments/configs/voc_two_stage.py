"""Both stages of the paper, one command: voc_stage1 in WORKDIR/stage1, then voc_stage2 from its last step in WORKDIR.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=train_aug
    python -m experiments.voc_train --config=experiments/configs/voc_two_stage.py --workdir=runs/voc \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

Settings are stage 2's; what both stages share (data, network, batch, initial weights, seed) goes to stage 1 too, and
--config.stage1.KEY=VALUE changes stage 1 alone. Sources, cost and expected result: voc_stage1.py, voc_stage2.py.
"""

import ml_collections

from . import stages, voc_stage1, voc_stage2


def get_config() -> ml_collections.ConfigDict:
    """Stage 2 with stage 1 inside."""
    return stages.after(voc_stage1.get_config(), voc_stage2.get_config())
