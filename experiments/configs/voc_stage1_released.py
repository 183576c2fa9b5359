"""Stage 1 as the released solver trains it, where that differs from the paper.

    python -m experiments.voc_train --config=voc_stage1_released --workdir=runs/voc_released \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

Source: training/001_stage_1/solver.prototxt and the authors' fork of Caffe (src/caffe/solver.cpp, layers/bn_layer.cpp):

- A step has 8 micro-batches of 8 crops. Each has its own batch statistics and its own mean over pixels; the loss is the
  mean of these means.
- The sum of gradient and weight decay is divided by 8, so the effective weight decay is 0.0005 / 8.
- Scale and shift of batch normalisation get only the last micro-batch's gradient, divided by 8; they decay.
- Biases have a doubled learning rate and do not decay. The velocity contains the learning rate, which drops at fixed
  steps.

Data, cost and expected result are those of voc_stage1.py. We have not trained it yet.
"""

import ml_collections
from ml_collections import config_dict

from . import voc_stage1


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: stage 1 with the released solver's arithmetic."""
    return released(voc_stage1.get_config())


def released(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Changes a config of the paper to the released solver's arithmetic and the released inference; returns it.

    Micro-batch and weight decay follow later changes of `batch_size` and `bn_group`.
    """
    config.micro_batch = config_dict.FieldReference(config.get_ref("bn_group"))
    config.caffe_gradients = True
    iter_size = config.get_ref("batch_size") // config.get_ref("bn_group")
    config.optimizer.weight_decay = config_dict.FieldReference(5e-4) / iter_size
    config.inference.mode = "released"
    return config
