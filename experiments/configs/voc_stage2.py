"""Stage 2 of the paper on VOC 2012 and SBD: crops around object proposals, all classes labelled.

    python -m experiments.prepare_data --dataset=voc2012 --manual_dir=DOWNLOADS --data_dir=DIR --proposals=train_aug
    python -m experiments.voc_train --config=voc_stage2 --workdir=runs/voc_stage2 \
        --config.init_from=runs/voc_stage1 --config.init_from_step=20000 --config.data.dataset=voc2012 \
        --config.data.data_dir=DIR --config.data.train_split=train_aug

For your own folder in the VOC layout, replace the three --config.data flags by --config.data.voc_root=FOLDER. Training
starts from the weights of stage 1, with zero momentum.

Sources of the numbers:

- Paper, section 6.1: 40,000 steps.
- Released solver (training/002_stage_2/solver.prototxt): learning rate 0.01 again, divided by 10 every 10,000 steps.
- Paper, section 6.1: proposals that overlap an object by half, enlarged 1.2 times, 2.7 million of them.
- training/003_make_bn_layer_testable: after training, batch-norm statistics are re-estimated over 500 batches of 28
  crops; the result goes to WORKDIR/calibrated.

All other numbers are those of voc_stage1.py.

Cost: 502 PFLOP (196 GFLOP per crop, 2.56 million crops), 6 hours at 25 TFLOP/s. Expected: 69.6 % mean IoU on VOC 2012
test with 50 proposals per image (paper, table 1; trained on train and val). We have not trained it yet: VOC's images
were not available to us.
"""

import ml_collections

from . import voc_stage1


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: stage 1 with other windows, labels and steps, and a calibration at the end."""
    config = voc_stage1.get_config()
    config.num_steps = 40_000
    config.data.windows = ("proposal",)
    config.data.label_mode = "all"
    config.optimizer.drops = (10_000, 20_000, 30_000)
    config.calibrate.batches = 500
    return config
