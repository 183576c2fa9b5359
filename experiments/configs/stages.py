"""Joins two configs into one that trains stage 1 and then stage 2, with the settings that they share."""

import ml_collections
from ml_collections import config_dict

# Keys that each stage sets for itself. Stage 1 takes the values of all other keys from stage 2.
OWN = ("num_steps", "data.windows", "data.label_mode", "calibrate.batches")
OWN += ("optimizer.drops", "optimizer.warmup_steps", "optimizer.decay_steps")


def after(stage1: ml_collections.ConfigDict, stage2: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Puts `stage1` into section "stage1" of `stage2` and returns `stage2`.

    A key of stage 1 that is not in `OWN` follows stage 2, also after later changes, until stage 1 gets its own value.

    Args:
      stage1: config of the stage that is trained first; it is changed.
      stage2: config of the stage that starts from its result; it has the same keys and is changed.

    Returns:
      `stage2`, with `stage1` in its section "stage1".
    """
    _refer(stage1, stage2, "")
    with stage2.unlocked():
        stage2.stage1 = stage1
    return stage2


def _refer(stage1: ml_collections.ConfigDict, stage2: ml_collections.ConfigDict, prefix: str) -> None:
    for key in stage1:
        if isinstance(stage1[key], ml_collections.ConfigDict):
            _refer(stage1[key], stage2[key], f"{prefix}{key}.")
        elif prefix + key not in OWN:
            # A reference to stage 2's reference: a value for stage 1 replaces only the outer one. With stage 2's own
            # reference, it would change stage 2 as well.
            stage1[key] = config_dict.FieldReference(stage2.get_ref(key))
