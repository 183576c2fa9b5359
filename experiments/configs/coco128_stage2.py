"""Second stage after `coco128`: object proposals, as in the paper's stage 2, so that the network sees all scales.

    python -m experiments.prepare_data --dataset=voc_layout --voc_root=coco128/VOCdevkit/VOC2012 --data_dir=tfds \
        --proposals=train
    python -m experiments.voc_train --config=coco128_stage2 --workdir=runs/coco128_stage2 \
        --config.data.voc_root=coco128/VOCdevkit/VOC2012 --config.data.data_dir=tfds --config.init_from=runs/coco128
    python -m experiments.voc_eval --checkpoint=runs/coco128_stage2/calibrated --split=train

Cost: about 35 minutes of training on two CPU cores, and 6 seconds per photograph of evaluation. Result with 50
proposals: mean IoU 27.9 % on the training photographs and 10.9 % on those of the split "val", over the classes in them
(docs/results.md).
"""

import ml_collections

from . import coco128


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: windows around proposals and whole images; inference with 50 proposals."""
    config = coco128.get_config()
    config.num_steps = 2000
    config.data.windows = ("proposal", "image")
    config.init.keep_features = False  # The weights come from `coco128`, not from VGG-16's file.
    config.optimizer.drops = (1600, 1850)
    config.eval_every = 1000
    config.calibrate.batches = 40  # Crops of proposals differ more than whole images, so their statistics vary more.
    config.inference.mode = "paper"
    return config
