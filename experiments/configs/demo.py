"""A small DeconvNet on the embedded scenes: minutes on two CPU cores, from nothing. `bash launch/demo.sh` runs it.

    python -m experiments.prepare_data --dataset=scenes --data_dir=runs/demo/data
    python -m experiments.voc_train --config=experiments/configs/demo.py --workdir=runs/demo \
        --config.data.voc_root=runs/demo/data/scenes
"""

import ml_collections

from experiments.configs import default


def get_config() -> ml_collections.ConfigDict:
    """A quarter of the width, whole scenes beside the crops of single objects, all classes labelled."""
    config = default.get_config()
    config.num_steps = 250
    config.batch_size = 8
    config.data.windows = ("instance",)
    config.data.label_mode = "all"
    config.model.width = 0.25
    config.model.fc_features = 256
    config.optimizer.learning_rate = 0.05
    config.optimizer.drops = (180, 230)
    config.eval_every = 125
    config.eval_images = 20
    config.checkpoint_every = 125
    return config
