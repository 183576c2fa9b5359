"""Stage 2 as the released solver trains, where that differs from the paper.

    python -m experiments.voc_train --config=experiments/configs/voc_stage2_released.py --workdir=runs/voc_released2 \
        --config.init_from=runs/voc_released --config.data.dataset=voc2012 --config.data.data_dir=DIR \
        --config.data.train_split=train_aug

training/002_stage_2/solver.prototxt; what differs from voc_stage2 is what voc_stage1_released says. Cost, expected
result and state as voc_stage2.
"""

import ml_collections

from . import voc_stage2
from .voc_stage1_released import released


def get_config() -> ml_collections.ConfigDict:
    """Stage 2 with the released solver's arithmetic."""
    return released(voc_stage2.get_config())
