"""Small DeconvNet on plain semantic masks, from random weights, on two CPU cores.

    python -m experiments.voc_train --config=semantic_cpu --workdir=runs/mine --config.data.voc_root=my_data
    python -m experiments.voc_eval --checkpoint=runs/mine --output=runs/mine/evaluation

The recipe of `semantic` at a size that trains without an accelerator: a quarter of the width, crops of 96 pixels. The
longer side of photographs is resized to 120 to 240 pixels in training, and to at most 192 in prediction.

Cost: 9,600 crops of 96 pixels, about ten minutes on two CPU cores. Result: not measured at this length. In a quarter of
the steps the smooth learning rate, averages, rotation and colours do not help (docs/results.md): switch them off then.
"""

import ml_collections

from . import semantic


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: a quarter of the width, augmented crops of small photographs, all classes."""
    config = semantic.get_config()
    config.num_steps = 2_400
    config.batch_size = 4
    config.bn_group = 4
    config.data.resize_size = 96
    config.data.crop_size = 96
    config.data.zoom = (1.25, 2.5)
    config.data.read_threads = 2
    config.model.width = 0.25
    config.model.fc_features = 256
    config.model.fc_window = 1  # With 96 pixels, pool5 has 3x3 cells; fc6 sees each of them separately.
    config.model.dtype = "float32"
    config.init.keep_features = False  # They are VGG-16's, whose layers are wider.
    config.data.rotation = 5.0
    config.data.brightness = 0.2
    config.data.contrast = 0.2
    config.data.saturation = 0.2
    config.data.hue = 0.02
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 100
    config.ema_decay = 0.99
    config.eval_every = 600
    config.checkpoint_every = 600
    config.inference.max_side = 192
    config.inference.batch_size = 6  # Six windows cover an image of 192x144.
    return config
