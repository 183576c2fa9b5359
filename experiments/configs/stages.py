"""Two configs as one: a stage that is trained first, and what it shares with the one after it."""

import ml_collections
from ml_collections import config_dict

# What belongs to a stage itself; all else is taken over from the stage after it.
OWN = ("num_steps", "data.windows", "data.label_mode", "optimizer.drops", "calibrate.batches")


def after(stage1: ml_collections.ConfigDict, stage2: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`stage2` with `stage1` in its section "stage1", whose shared settings are stage 2's until they get their own."""
    _refer(stage1, stage2, "")
    with stage2.unlocked():
        stage2.stage1 = stage1
    return stage2


def _refer(stage1: ml_collections.ConfigDict, stage2: ml_collections.ConfigDict, prefix: str) -> None:
    for key in stage1:
        if isinstance(stage1[key], ml_collections.ConfigDict):
            _refer(stage1[key], stage2[key], f"{prefix}{key}.")
        elif prefix + key not in OWN:
            # Another reference, which a value given to stage 1 replaces; the same one would change stage 2 with it.
            stage1[key] = config_dict.FieldReference(stage2.get_ref(key))
