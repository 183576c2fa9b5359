"""Stage 2 as the released solver trains it, where that differs from the paper.

    python -m experiments.voc_train --config=voc_stage2_released --workdir=runs/voc_released2 \
        --config.init_from=runs/voc_released --config.data.dataset=voc2012 --config.data.data_dir=DIR \
        --config.data.train_split=train_aug

Source: training/002_stage_2/solver.prototxt. It differs from voc_stage2.py as voc_stage1_released.py differs from
voc_stage1.py. Data, cost and expected result are those of voc_stage2.py. We have not trained it yet.
"""

import ml_collections

from . import voc_stage2
from .voc_stage1_released import released


def get_config() -> ml_collections.ConfigDict:
    """Returns the config: stage 2 with the released solver's arithmetic."""
    return released(voc_stage2.get_config())
