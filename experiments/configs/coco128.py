"""Small DeconvNet with VGG-16's encoder that learns a few dozen photographs by heart, on two CPU cores.

    python -m experiments.voc_train --config=coco128 --workdir=runs/coco128 \
        --config.data.voc_root=coco128/VOCdevkit/VOC2012 --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/coco128 --step=3000 --split=train

Shows that the whole pipeline works on photographs, from file to score. The folder holds the photographs of COCO128 that
show VOC's classes, 73 of them for training. The numbers are our own choice: photographs of 128 pixels, the same ones in
every epoch, a decoder of half the width. Of the encoder only the last block learns.

Cost: about 30 minutes on two CPU cores. Result: mean IoU 60 to 70 % on the training photographs and 9 to 10 % on those
of the split "val", over the classes in them.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: whole photographs of 128 pixels without augmentation, all classes."""
    config = default.get_config()
    config.num_steps = 3000
    config.batch_size = 4
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 128
    config.data.crop_size = 128
    config.data.random_crop = False
    config.data.mirror = False
    config.model.decoder_width = 0.5
    config.model.fc_features = 512
    config.model.fc_window = 1
    config.model.decoder_init = "smooth"
    config.init.keep_features = True
    config.class_balance = 0.5
    config.optimizer.learning_rate = 0.01
    config.optimizer.drops = (2500, 2850)
    config.optimizer.freeze = ("conv1_", "conv2_", "conv3_", "conv4_", "bn1_", "bn2_", "bn3_", "bn4_")
    config.log_every = 50
    config.eval_every = 1000
    config.checkpoint_every = 500
    config.inference.mode = "whole_image"  # as in training
    return config
