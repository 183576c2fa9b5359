"""`coco128` goes on with object proposals, as the paper's stage 2: the network then knows objects at any scale.

    python -m experiments.prepare_data --dataset=voc_layout --voc_root=coco128/VOCdevkit/VOC2012 --data_dir=tfds \
        --proposals=train
    python -m experiments.voc_train --config=experiments/configs/coco128_stage2.py --workdir=runs/coco128_stage2 \
        --config.data.voc_root=coco128/VOCdevkit/VOC2012 --config.data.data_dir=tfds --config.init_from=runs/coco128
    python -m experiments.voc_eval --checkpoint=runs/coco128_stage2/calibrated --split=train

About 35 minutes on two CPU cores, and 6 seconds a photograph to evaluate. Mean IoU with 50 proposals 27.9 % on the
training photographs, 10.9 % on those of "val" (classes in them): docs/inference.md.
"""

import ml_collections

from . import coco128


def get_config() -> ml_collections.ConfigDict:
    """Windows around proposals that overlap an object, and whole images; segmented from 50 proposals."""
    config = coco128.get_config()
    config.num_steps = 2000
    config.data.windows = ("proposal", "image")
    config.init.keep_features = False  # the network begins with another one's features
    config.optimizer.drops = (1600, 1850)
    config.eval_every = 1000
    config.calibrate.batches = 40  # whose windows differ more than whole images do
    config.inference.mode = "paper"
    return config
