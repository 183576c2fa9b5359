"""FCN-8s on the photographs of `coco128`: the second network of an ensemble with `coco128_stage2`.

    python -m experiments.voc_train --config=coco128_fcn8s --workdir=runs/coco128_fcn8s \
        --config.data.voc_root=coco128/VOCdevkit/VOC2012 --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/coco128_fcn8s --split=train

The recipe is that of voc_fcn8s.py, made small: photographs of 128 pixels, 400 steps, and VGG-16's convolutions do not
learn.

Cost: about 15 minutes on two CPU cores. Result: mean IoU 55.8 % on the training photographs and 10.5 % on those of the
split "val", over the classes in them.
"""

import ml_collections

from . import voc_fcn8s


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: whole photographs of 128 pixels; only the layers after VGG-16's convolutions learn."""
    config = voc_fcn8s.get_config()
    config.num_steps = 400
    config.batch_size = 4
    config.micro_batch = 0
    config.data.resize_size = 128
    config.data.crop_size = 128
    config.data.random_crop = False
    config.data.mirror = False
    config.model.fc_features = 512
    config.class_balance = 0.5
    config.optimizer.drops = (320,)
    config.optimizer.freeze = ("conv", "upsample")
    config.log_every = 50
    config.eval_every = 200
    config.checkpoint_every = 200
    return config
