"""FCN-8s, the other half of the paper's ensemble, trained on whole images.

    python -m experiments.voc_train --config=experiments/configs/voc_fcn8s.py --workdir=runs/voc_fcn8s \
        --config.data.dataset=voc2012 --config.data.data_dir=DIR --config.data.train_split=train_aug \
        --config.init.vgg16=vgg16-397923af.pth

On 8 devices, which 20 does not divide over: --config.batch_size=24.

The paper takes Berkeley's fcn-8s-pascal.caffemodel, which `experiments.import_weights` reads; this trains one without
it. Long, Shelhamer, Darrell, CVPR 2015, section 4.3: VGG-16 with fc6 and fc7, 20 images a step, momentum 0.9, weight
decay 0.0005, biases twice as fast, scores begin at zero, dropout, the last interpolation is fixed. All strides are
trained at once. For that the authors (voc-fcn8s-atonce) scale pool4 by 0.01 and pool3 by 0.0001 before they score them;
the same steps come from learning rates of these two layers times the squares. The learning rate itself: their solver
has 1e-10 for one image, summed over its 250,000 or so pixels, with momentum 0.99; for the mean over 20 images with
momentum 0.9 an image moves the weights as far at 1e-10 x 250,000 x 20 x (1 - 0.9) / (1 - 0.99) = 0.005. Here it is a
fifth of that, because a step over 20 images at once goes further before the next gradient is seen.

Images are squared with black and resized to 512 pixels, mirrored, cut to 480 at random.

Cost: 20 images of 480 pixels are 92 crops of 224 of an encoder, 93 GFLOP each, and fc6 at 225 places an image: 12,000
steps are about 140 PFLOP.
Expected: 62.2 % mean IoU on VOC 2012 test (their table 3). Not yet run by us at this size: it needs an accelerator and
VOC.
"""

import ml_collections
from ml_collections import config_dict

from . import default


def get_config() -> ml_collections.ConfigDict:
    """Another network, whole images, all classes."""
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
    config.inference.mode = "whole_image"  # as it was trained
    return config.lock()
