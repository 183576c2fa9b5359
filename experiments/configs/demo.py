"""Small DeconvNet on the synthetic scenes, from random weights: a few minutes on two CPU cores.

    bash launch/demo.sh

does everything, installation included. By hand:

    python -m experiments.prepare_data --dataset=scenes --data_dir=runs/demo/data
    python -m experiments.voc_train --config=demo --workdir=runs/demo \
        --config.data.voc_root=runs/demo/data/scenes --config.data.data_dir=runs/demo/data/tfds

The numbers are our own choice: a quarter of the paper's width, whole scenes of 96 pixels, all classes labelled.

Cost: four minutes of training on two CPU cores. Result: mean IoU 80 to 88 % on the 40 held-out scenes of the split
"val"; rounding, which differs between machines and JAX versions, decides where in this range.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: a quarter of the width, whole scenes, all classes."""
    config = default.get_config()
    config.num_steps = 2400
    config.batch_size = 4
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 108
    config.data.crop_size = 96
    config.model.width = 0.25
    config.model.fc_features = 256
    config.model.fc_window = 1  # With 96 pixels, pool5 has 3x3 cells; fc6 sees each of them separately.
    config.model.decoder_init = "smooth"
    config.optimizer.learning_rate = 0.05
    config.optimizer.drops = (1800, 2200)
    config.log_every = 50
    config.eval_every = 800
    config.checkpoint_every = 800
    config.inference.mode = "whole_image"  # as in training
    return config
