"""A small DeconvNet on the embedded scenes: minutes on two CPU cores, from nothing. `bash launch/demo.sh` runs it.

    python -m experiments.prepare_data --dataset=scenes --data_dir=runs/demo/data
    python -m experiments.voc_train --config=experiments/configs/demo.py --workdir=runs/demo \
        --config.data.voc_root=runs/demo/data/scenes --config.data.data_dir=runs/demo/data/tfds

Four minutes of training; mean IoU 80 to 88 % on the 40 scenes of the split "val", as rounding has it.
"""

import ml_collections

from . import default


def get_config() -> ml_collections.ConfigDict:
    """A quarter of the width on whole scenes at 96 pixels, all classes labelled."""
    config = default.get_config()
    config.num_steps = 2400
    config.batch_size = 4
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 108
    config.data.crop_size = 96
    config.model.width = 0.25
    config.model.fc_features = 256
    config.model.fc_window = 1  # at 96 pixels fc6 sees each cell of the 3x3 of pool5 by itself
    config.model.decoder_init = "smooth"
    config.optimizer.learning_rate = 0.05
    config.optimizer.drops = (1800, 2200)
    config.log_every = 50
    config.eval_every = 800
    config.checkpoint_every = 800
    config.inference.mode = "whole_image"  # as it was trained
    return config
