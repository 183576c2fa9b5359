"""DeconvNet on CamVid with SegNet's split: 367 training images of streets, 11 classes.

    python -m experiments.prepare_data --dataset=camvid --manual_dir=CamVid --data_dir=DIR
    python -m experiments.voc_train --config=camvid --workdir=runs/camvid \
        --config.data.dataset=camvid --config.data.data_dir=DIR --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/camvid --split=test --output=runs/camvid/test

The DeconvNet paper does not use CamVid, so the recipe is our own; only the optimizer's settings are the paper's. Crops
of 352 pixels come from images of 480x360, resized by 0.73 to 1.47 and mirrored at random. The loss weights a class by
the inverse root of its share of the pixels. Images are segmented in overlapping windows of 352 pixels.

Cost: 47 PFLOP for 6,000 steps (16 crops of 352 pixels cost as much as 40 of 224); five to six minutes on one H100.
Result: 64.2 % mean IoU on the test images after 5,773 steps (docs/results.md). Published for DeconvNet: 59.8 %.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: crops of whole images of streets, all classes."""
    config = default.get_config()
    config.num_steps = 6_000
    config.batch_size = 16
    config.bn_group = 16
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 352  # the longer side of 480 pixels at 0.73 of its size
    config.data.crop_size = 352
    config.data.zoom = (1.0, 2.0)
    config.data.inside_image = True
    config.data.read_threads = 8
    config.model.dtype = "bfloat16"
    config.model.decoder_init = "smooth"
    config.init.keep_features = True
    config.class_balance = 0.5
    config.optimizer.drops = (4_000, 5_400)
    config.log_every = 50
    config.eval_every = 2_000
    config.checkpoint_every = 2_000
    config.inference.mode = "sliding_window"
    config.inference.aggregation = "mean"
    config.inference.batch_size = 4  # Four windows cover an image of 480x360.
    return config
