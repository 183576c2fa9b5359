"""DeconvNet on plain semantic masks: photographs with a class per pixel, no objects, no proposals. For one GPU.

    python -m experiments.voc_train --config=semantic --workdir=runs/mine \
        --config.data.voc_root=my_data --config.init.vgg16=vgg16-397923af.pth
    python -m experiments.voc_eval --checkpoint=runs/mine --output=runs/mine/evaluation

The recipe is that of `camvid` for photographs of any size. In training their longer side is resized to 352 to 704
pixels, in prediction to at most 512. Crops of 352 pixels are mirrored, turned by up to 10 degrees and vary in colour.
The learning rate rises for 200 steps and then falls smoothly to 0; predictions use averages of the weights.
`docs/own_data.md` says how to write the data and which settings to change. `semantic_cpu` is for two CPU cores.

Cost: that of `camvid`, 47 PFLOP for 6,000 steps. We have not run it: what its options add to `camvid` is unknown. For
the small network of `semantic_cpu` they make no difference (docs/results.md).
"""

import ml_collections
from ml_collections import config_dict

from . import camvid


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: augmented crops of whole photographs, all classes."""
    config = camvid.get_config()
    config.data.rotation = 10.0
    config.data.brightness = 0.3
    config.data.contrast = 0.3
    config.data.saturation = 0.3
    config.data.hue = 0.05
    config.optimizer.schedule = "poly"
    config.optimizer.warmup_steps = 200
    config.optimizer.decay_steps = config_dict.FieldReference(config.get_ref("num_steps"))
    config.ema_decay = 0.999
    config.inference.max_side = 512  # about the middle of the sizes in training
    return config
