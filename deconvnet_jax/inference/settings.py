"""What can be chosen for the segmentation of images, with the type and range of every setting."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference.modes import ENLARGED, MODES
from deconvnet_jax.inference.proposal_batch import AGGREGATIONS
from deconvnet_jax.ops import CRF_PRESETS
from deconvnet_jax.proposals.edge_boxes import METHODS
from deconvnet_jax.settings import Choice, Kind, LocalPath, Number, Switch, check_values, chosen_path

_METHODS = tuple(method for method in METHODS if method != "structured_forest")  # which needs a file besides
KINDS: dict[str, Kind] = {
    "mode": Choice(tuple(MODES)),
    "num_proposals": Number(1, 100_000, whole=True),
    "proposals": LocalPath(names=_METHODS),
    "enlarge": Number(0, 100, above=True),
    "aggregation": Choice(AGGREGATIONS),
    "flip": Switch(),
    "crf": Choice(("none", *CRF_PRESETS)),
    "crf_sharpness": Number(0, 100),
    "ensemble_checkpoint": LocalPath(names=("",), in_bucket=True),
    "batch_size": Number(1, 100_000, whole=True),
    "max_side": Number(1, 100_000, whole=True),
}


@dataclass(frozen=True)
class InferenceSettings:
    """Settings of `Segmenter`; those of an experiment are its `config.inference`.

    Attributes:
      mode: one of `MODES`, whose rows say which windows the network is shown; docs/inference.md describes them. An
        FCN-8s sees the whole image in any mode.
      num_proposals: how many proposals the network is shown; the paper's 50.
      proposals: a method of `data.propose_boxes`; or the path of a file of proposals, as `experiments.prepare_data`
        writes, or of a folder of the original's. The caller of the Segmenter reads those.
      enlarge: factor on both sides of proposals; 1.0 for the original's, which are enlarged already.
      aggregation: of the windows that show a pixel: "max" or "mean".
      flip: average with the scores of the mirrored windows; twice the work.
      crf: "none", or the name of one of `ops.CRF_PRESETS`: a fully connected CRF at the end.
      crf_sharpness: factor on the scores before the softmax that gives the CRF its unaries, from 0 to 100. 1 keeps the
        scores' own softmax; 0 takes the mode's factor for "usual" (4 after proposals), otherwise 1.
      ensemble_checkpoint: a second network of the same classes; an FCN-8s in the paper. "" for none.
      batch_size: windows that the network sees at once.
      max_side: larger images are reduced to that, and their scores enlarged again.
    """

    mode: str = "paper"
    num_proposals: int = 50
    proposals: str = "network"
    enlarge: float = ENLARGED
    aggregation: str = "max"
    flip: bool = False
    crf: str = "none"
    crf_sharpness: float = 0.0
    ensemble_checkpoint: str = ""
    batch_size: int = 10
    max_side: int = 1024

    def __post_init__(self) -> None:
        check_values(vars(self), KINDS, "inference.")
        if MODES[self.mode].clip and self.aggregation != "max":
            raise InputError(f"inference.mode='{self.mode}' takes the maximum; leave inference.aggregation at 'max'")
        path = self.proposals_path
        if path is not None and not path.exists():
            raise InputError(f"inference.proposals='{self.proposals}': neither a file nor one of {', '.join(_METHODS)}")

    @property
    def proposals_path(self) -> Path | None:
        """The file or folder of proposals, where they come from one."""
        return chosen_path(self.proposals, KINDS["proposals"], "inference.proposals")

    @property
    def uses_proposals(self) -> bool:
        """Whether windows are proposals."""
        return MODES[self.mode].of_proposals is not None

    def changed(self, **settings: Any) -> "InferenceSettings":
        """Returns a copy with some settings changed.

        Raises:
          InputError: for an unknown name or value.
        """
        known = [field.name for field in fields(self)]
        for name in settings:
            if name not in known:
                raise InputError(f"inference.{name}: no such setting; expected one of {', '.join(known)}")
        return replace(self, **settings)


def settings_from(saved: Mapping[str, Any]) -> InferenceSettings:
    """Returns the settings in a checkpoint's config (its "inference"); an older version may not have known them all."""
    known = {field.name for field in fields(InferenceSettings)}
    return InferenceSettings(**{key: value for key, value in saved.items() if key in known and value is not None})
