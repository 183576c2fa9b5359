"""FCN-8s on whole images of VOC 2012 and SBD: the second network of the paper's ensemble.

    python -m experiments.voc_train --config=voc_fcn8s --workdir=runs/voc_fcn8s \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

On 8 devices add --config.batch_size=24, because 20 is not a multiple of 8.

The paper uses Berkeley's fcn-8s-pascal.caffemodel, which `experiments.import_weights` reads. This config trains an
FCN-8s without that file. The numbers are those of Long, Shelhamer, Darrell, CVPR 2015, section 4.3: VGG-16 with fc6 and
fc7, 20 images per step, momentum 0.9, weight decay 0.0005, a doubled learning rate for biases, score layers that start
at zero, dropout, and a fixed last interpolation. Two things are derived:

- All strides are trained at once. For that, the authors' voc-fcn8s-atonce scales pool4 by 0.01 and pool3 by 0.0001
  before the score layers. Learning rates of these two score layers times the squares of these factors give the same
  steps.
- The authors' solver has a learning rate of 1e-10 for one image, with momentum 0.99 and a loss that is summed over
  about 250,000 pixels. With momentum 0.9 and a mean over 20 images, an image moves the weights as far at a learning
  rate of 1e-10 x 250,000 x 20 x (1 - 0.9) / (1 - 0.99) = 0.005. This config uses a fifth of that, because a step over
  20 images goes further before the next gradient is known.

Images are padded to squares with black, resized to 512 pixels, mirrored at random, and cropped to 480 at random.

Cost: about 140 PFLOP for 12,000 steps. 20 images of 480 pixels cost as much as 92 crops of 224 in the encoder (93 GFLOP
each), and fc6 runs at 225 places per image. Expected: 62.2 % mean IoU on VOC 2012 test (their table 3). We have not
trained it at this size yet: VOC's images were not available to us.
"""

import ml_collections
from ml_collections import config_dict

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: an FCN-8s instead of a DeconvNet, whole images, all classes."""
    config = default.get_config()
    with config.unlocked():
        config.model = model = ml_collections.ConfigDict()
        model.architecture = "fcn8s"
        model.num_classes = config_dict.placeholder(int)
        model.width = 1.0
        model.fc_features = 4096
        model.dtype = "float32"
    config.num_steps = 12_000
    config.batch_size = 20
    config.micro_batch = 5
    config.data.windows = ("image",)
    config.data.label_mode = "all"
    config.data.resize_size = 512
    config.data.crop_size = 480
    config.optimizer.learning_rate = 0.001
    config.optimizer.rates = (("score-pool4", 1e-4), ("score-pool3", 1e-8))
    config.optimizer.drops = (8_000, 11_000)
    config.optimizer.freeze = ("upsample",)
    config.inference.mode = "whole_image"  # as in training
    return config.lock()
