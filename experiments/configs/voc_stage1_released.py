"""Stage 1 as the released solver trains, where that differs from the paper.

    python -m experiments.voc_train --config=experiments/configs/voc_stage1_released.py --workdir=runs/voc_released \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

training/001_stage_1/solver.prototxt with the released fork of Caffe (src/caffe/solver.cpp, layers/bn_layer.cpp):

- a step is 8 micro-batches of 8 crops, each with its own batch statistics and its own mean over pixels; the loss is
  the mean of these means;
- the sum of gradient and decay is divided by 8, so the decay in effect is 0.0005 / 8;
- scale and shift of batch normalisation get the gradient of the last micro-batch alone, divided by 8; they decay;
- biases learn twice as fast and do not decay; the learning rate is inside the velocity and drops at fixed steps.

Crops, cost and state as voc_stage1.
"""

import ml_collections
from ml_collections import config_dict

from . import voc_stage1


def get_config() -> ml_collections.ConfigDict:
    """Stage 1 with the released solver's arithmetic."""
    return released(voc_stage1.get_config())


def released(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A config of the paper with the released arithmetic and inference; another batch size keeps the relations."""
    config.micro_batch = config.get_ref("bn_group")
    config.caffe_gradients = True
    iter_size = config.get_ref("batch_size") // config.get_ref("bn_group")
    config.optimizer.weight_decay = config_dict.FieldReference(5e-4) / iter_size
    config.inference.mode = "released"
    return config
