"""A few dozen photographs learnt by heart on two CPU cores, from VGG-16's encoder.

    python -m experiments.voc_train --config=experiments/configs/coco128.py --workdir=runs/coco128 \
        --config.data.voc_root=coco128/VOCdevkit/VOC2012 --config.init.vgg16=vgg16.npz
    python -m experiments.voc_eval --checkpoint=runs/coco128 --step=1600 --split=train
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
    """Whole photographs at 128 pixels, all classes labelled, the same every epoch; half the encoder is fixed."""
    config = default.get_config()
    config.num_steps = 1600
    config.batch_size = 8
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 128
    config.data.crop_size = 128
    config.data.random_crop = False
    config.data.mirror = False
    config.model.decoder_width = 0.5
    config.model.fc_features = 512
    config.model.fc_window = 1
    config.optimizer.learning_rate = 0.05
    config.optimizer.drops = (1300, 1500)
    config.optimizer.freeze = ("conv1_", "conv2_", "conv3_", "bn1_", "bn2_", "bn3_")
    config.eval_every = 400
    config.checkpoint_every = 400
    return config
