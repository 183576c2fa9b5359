"""Stage 2 of the paper: object proposals, all classes labelled; starts from stage 1's result, momentum anew.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=train_aug
    python -m experiments.voc_train --config=experiments/configs/voc_stage2.py --workdir=runs/voc_stage2 \
        --config.init_from=runs/voc_stage1 --config.init_from_step=20000 --config.data.dataset=voc2012 \
        --config.data.data_dir=DIR --config.data.train_split=train_aug

or, on a folder in the VOC layout, --config.data.voc_root=FOLDER instead of the flags of data.

Where the numbers are from: 40,000 steps: paper, section 4.2; learning rate 0.01 again, divided by 10 every 10,000
steps: the released solver (training/002_stage_2/solver.prototxt). Proposals that overlap an object by half, enlarged
1.2 times, 2.7 million of them: section 4.1. The rest as voc_stage1. At the end the statistics of batch normalisation
are measured over 500 batches of 28 crops (training/003_make_bn_layer_testable), into WORKDIR/calibrated.

Cost: 196 GFLOP a crop, 2.56 million crops, 502 PFLOP: 6 hours at 25 TFLOP/s. Expected: 69.6 % mean IoU on VOC 2012
test with 50 proposals an image (paper, table 1; trained on train and val). Not yet run by us: it needs an accelerator
and VOC.
"""

import ml_collections

from . import voc_stage1


def get_config() -> ml_collections.ConfigDict:
    """Stage 1 with other windows, labels and steps."""
    config = voc_stage1.get_config()
    config.num_steps = 40_000
    config.data.windows = ("proposal",)
    config.data.label_mode = "all"
    config.optimizer.drops = (10_000, 20_000, 30_000)
    config.calibrate.batches = 500
    return config
