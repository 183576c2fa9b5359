"""Small DeconvNet with VGG-16's encoder on plain semantic masks, on two CPU cores.

    python -m experiments.voc_train --config=semantic_cpu --workdir=runs/mine \
        --config.data.voc_root=my_data --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/mine --output=runs/mine/evaluation

The recipe of `semantic` at a size that trains without an accelerator: a decoder of a quarter of the width and crops of
96 pixels. Of the encoder only the last two blocks learn. The longer side of photographs is resized to 120 to 240 pixels
in training, and to at most 192 in prediction.

Cost: 4,800 crops of 96 pixels, 13 minutes on one CPU core. Result: 47.5 % mean IoU on the validation images of CamVid
(docs/results.md). The smooth learning rate, averages, rotation and colours neither help nor harm at this size.
"""

import ml_collections

from . import semantic


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: VGG-16's encoder, a small decoder, augmented crops of small photographs, all classes."""
    config = semantic.get_config()
    config.num_steps = 1_200
    config.batch_size = 4
    config.bn_group = 4
    config.data.resize_size = 96
    config.data.crop_size = 96
    config.data.zoom = (1.25, 2.5)
    config.data.read_threads = 2
    config.model.decoder_width = 0.25
    config.model.fc_features = 256
    config.model.fc_window = 1  # With 96 pixels, pool5 has 3x3 cells; fc6 sees each of them separately.
    config.model.dtype = "float32"
    config.data.rotation = 5.0
    config.data.brightness = 0.2
    config.data.contrast = 0.2
    config.data.saturation = 0.2
    config.data.hue = 0.02
    config.optimizer.learning_rate = 0.02
    config.optimizer.warmup_steps = 60
    config.optimizer.freeze = ("conv1_", "conv2_", "conv3_", "bn1_", "bn2_", "bn3_")
    config.ema_decay = 0.99
    config.eval_every = 600
    config.checkpoint_every = 600
    config.inference.max_side = 192
    config.inference.batch_size = 6  # Six windows cover an image of 192x144.
    return config
