"""Both stages of the paper in one command: stage 1 in WORKDIR/stage1, then stage 2 from its last step in WORKDIR.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=train_aug
    python -m experiments.voc_train --config=voc_two_stage --workdir=runs/voc \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

--config.KEY=VALUE changes stage 2, and stage 1 too where both share the key: data, network, batch, initial weights and
seed. --config.stage1.KEY=VALUE changes stage 1 alone.

Sources, cost and expected result of each stage: voc_stage1.py and voc_stage2.py; together 753 PFLOP. We have not
trained it yet: VOC's images were not available to us.
"""

import ml_collections

from . import stages, voc_stage1, voc_stage2


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of stage 2 with stage 1 in its section "stage1"."""
    return stages.after(voc_stage1.get_config(), voc_stage2.get_config())
