"""DeconvNet on CamVid, the split of SegNet: 367 images of streets, 11 classes.

    python -m experiments.prepare_data --dataset=camvid --manual_dir=CamVid --data_dir=DIR
    python -m experiments.voc_train --config=experiments/configs/camvid.py --workdir=runs/camvid \
        --config.data.dataset=camvid --config.data.data_dir=DIR --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/camvid --split=test --output=runs/camvid/test

No recipe of the DeconvNet paper, which does not use CamVid. Whole images, 480x360 squared with black, resized to 400
pixels, cut to 352 at random and mirrored; all classes, classes weighted by the inverse root of their share of pixels.
The optimizer is the paper's; 8 crops share batch statistics.

Cost: 16 crops of 352 pixels are 40 of 224: 8,000 steps, 63 PFLOP. Not yet run by us at this size: it needs an
accelerator.
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
    """Whole images, all classes."""
    config = default.get_config()
    config.num_steps = 8_000
    config.batch_size = 16
    config.bn_group = 8
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 400
    config.data.crop_size = 352
    config.class_balance = 0.5
    config.optimizer.drops = (5_000, 7_000)
    config.eval_every = 1_000
    config.calibrate.batches = 200
    config.calibrate.batch_size = 16
    config.inference.mode = "whole_image"  # as it was trained
    return config
