"""DeconvNet on CamVid, the split of SegNet: 367 images of streets, 11 classes.

    python -m experiments.prepare_data --dataset=camvid --manual_dir=CamVid --data_dir=DIR
    python -m experiments.voc_train --config=experiments/configs/camvid.py --workdir=runs/camvid \
        --config.data.dataset=camvid --config.data.data_dir=DIR --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/camvid --split=test --output=runs/camvid/test

No recipe of the DeconvNet paper, which does not use CamVid. Crops of 352 pixels from images of 480x360 at 0.73 to 1.47
times their size, mirrored; classes weighted by the inverse root of their share of pixels. Images are segmented in
overlapping windows of 352 pixels at their own size. The optimizer is the paper's.

Cost: 16 crops of 352 pixels are 40 of 224: 6,000 steps, 47 PFLOP; five to six minutes on one H100. On the test images
64.2 % mean IoU after 5,773 steps (docs/results.md); published for DeconvNet: 59.8 %.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Crops of whole streets, all classes."""
    config = default.get_config()
    config.num_steps = 6_000
    config.batch_size = 16
    config.bn_group = 16
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 352  # a whole image at 0.73 of its size,
    config.data.crop_size = 352
    config.data.zoom = (1.0, 2.0)  # up to twice as large
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
    config.inference.batch_size = 4  # so many windows cover an image
    return config
