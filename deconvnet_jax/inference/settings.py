"""Defines the settings of inference, with the type and range of each."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack

from deconvnet_jax.errors import InputError, did_you_mean
from deconvnet_jax.inference.modes import ENLARGED, MODES
from deconvnet_jax.inference.proposal_batch import AGGREGATIONS
from deconvnet_jax.ops import CRF_PRESETS
from deconvnet_jax.proposals.edge_boxes import METHODS
from deconvnet_jax.settings import Choice, Kind, LocalPath, Number, Several, Switch, check_values, chosen_path

# structured_forest also needs a model file, which no setting names.
_METHODS = tuple(method for method in METHODS if method != "structured_forest")
KINDS: dict[str, Kind] = {
    "mode": Choice(tuple(MODES)),
    "num_proposals": Number(1, 100_000, whole=True),
    "proposals": LocalPath(names=_METHODS),
    "enlarge": Number(0, 100, above=True),
    "aggregation": Choice(AGGREGATIONS),
    "flip": Switch(),
    "scales": Several(Number(0.25, 4), least=1, distinct=True),
    "crf": Choice(("none", *CRF_PRESETS)),
    "crf_sharpness": Number(0, 100),
    "ensemble_checkpoint": LocalPath(names=("",), in_bucket=True),
    "batch_size": Number(1, 100_000, whole=True),
    "max_side": Number(1, 100_000, whole=True),
}


# The choices again, because editors and type checkers cannot read `KINDS`; a test compares both.
ModeName: TypeAlias = Literal["paper", "released", "whole_image", "sliding_window"]
MethodName: TypeAlias = Literal["network", "gradient", "selective_search", "grid"]
AggregationName: TypeAlias = Literal["max", "mean"]
CrfName: TypeAlias = Literal["none", "released", "usual"]


class SettingValues(TypedDict, total=False):
    """The settings that `Segmenter` takes as keywords, for editors and type checkers; see `InferenceSettings`."""

    mode: ModeName
    num_proposals: int
    proposals: MethodName | str | os.PathLike[str]
    enlarge: float
    aggregation: AggregationName
    flip: bool
    crf: CrfName
    crf_sharpness: float
    ensemble_checkpoint: str | os.PathLike[str]
    batch_size: int
    max_side: int
    scales: Sequence[float]


@dataclass(frozen=True)
class InferenceSettings:
    """Settings of a `Segmenter`, checked when they are made; an experiment has them as `config.inference`.

    Attributes:
      mode: which windows the network is shown, a key of `MODES`; docs/inference.md describes them. An FCN-8s sees the
        whole image in any mode.
      num_proposals: proposals that the network is shown per image, at least 1; the paper uses 50.
      proposals: a method of `data.propose_boxes`; or the path of a file of proposals from `experiments.prepare_data`,
        or of a folder of the original's proposals. Files are read by the caller of the Segmenter.
      enlarge: a factor on both sides of proposals, above 0; use 1.0 for the original's, which are enlarged already.
      aggregation: how the scores of all windows that show a pixel are combined: "max" or "mean".
      flip: True averages the scores with those of the mirrored windows, for twice the work.
      crf: "none", or a key of `ops.CRF_PRESETS` to apply a fully connected CRF to the scores.
      crf_sharpness: a factor on the scores before the softmax that gives the CRF its unaries, 0 to 100. 1 keeps the
        scores' softmax. 0 takes the mode's factor for "usual" (4 after proposals), and 1 otherwise.
      ensemble_checkpoint: the path of a second network with the same classes, in the paper an FCN-8s; "" for none.
      batch_size: windows that the network sees at once, per device.
      max_side: in pixels; larger images are reduced to it, and their scores are enlarged again.
      scales: the scales at which the network is shown an image, 0.25 to 4, for the modes without proposals; the scores
        are averaged. At scale 2, windows have half the side in the image, and there are more of them.

    Raises:
      InputError: if a value has the wrong type or is out of range, or two settings do not fit together.

    Example:
      >>> InferenceSettings(mode="sliding_window", crf="usual").changed(crf="none")
      InferenceSettings(mode='sliding_window', num_proposals=50, proposals='network', ...)
    """

    mode: ModeName = "paper"
    num_proposals: int = 50
    proposals: MethodName | str = "network"
    enlarge: float = ENLARGED
    aggregation: AggregationName = "max"
    flip: bool = False
    crf: CrfName = "none"
    crf_sharpness: float = 0.0
    ensemble_checkpoint: str = ""
    batch_size: int = 10
    max_side: int = 1024
    scales: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        check_values(vars(self), KINDS, "inference.")
        object.__setattr__(self, "scales", tuple(map(float, self.scales)))  # A checkpoint's config holds a list.
        if self.uses_proposals and self.scales != (1.0,):
            raise InputError(
                f"inference.scales={self.scales}: inference.mode='{self.mode}' takes its windows from proposals, which "
                "have no scales; give inference.mode whole_image or sliding_window, or inference.scales=(1.0,)"
            )
        if MODES[self.mode].clip and self.aggregation != "max":
            raise InputError(f"inference.aggregation='{self.aggregation}': inference.mode='{self.mode}' needs 'max'")
        path = self.proposals_path
        if path is not None and not path.exists():
            raise InputError(
                f"inference.proposals='{self.proposals}': expected an existing file, or one of {', '.join(_METHODS)}"
            )

    @property
    def proposals_path(self) -> Path | None:
        """The file or folder of proposals; None if proposals are found by a method."""
        return chosen_path(self.proposals, KINDS["proposals"], "inference.proposals")

    @property
    def uses_proposals(self) -> bool:
        """Whether the mode makes its windows from proposals."""
        return MODES[self.mode].of_proposals is not None

    def summary(self) -> str:
        """Returns the mode and the settings that differ from the defaults, as they are written in Python.

        Example:
          >>> InferenceSettings(num_proposals=20).summary()
          "mode='paper', num_proposals=20"
        """
        told = (field for field in fields(self) if field.name == "mode" or vars(self)[field.name] != field.default)
        return ", ".join(f"{field.name}={vars(self)[field.name]!r}" for field in told)

    def changed(self, **settings: Unpack[SettingValues]) -> "InferenceSettings":
        """Returns a copy with some settings changed.

        Args:
          **settings: the new values by the names of the attributes.

        Raises:
          InputError: for an unknown name or value.
        """
        known = [field.name for field in fields(self)]
        for name in settings:
            if name not in known:
                raise InputError(
                    f"inference.{name}: no such setting; expected one of {', '.join(known)}{did_you_mean(name, known)}"
                )
        return replace(self, **settings)


def settings_from(saved: Mapping[str, Any]) -> InferenceSettings:
    """Returns the settings in a checkpoint's config.

    Args:
      saved: the section "inference" of the config; may lack newer settings and hold unknown ones.

    Returns:
      The settings: defaults for missing names and for None; unknown names are ignored.

    Raises:
      InputError: if a value is out of its range.
    """
    known = {field.name for field in fields(InferenceSettings)}
    return InferenceSettings(**{key: value for key, value in saved.items() if key in known and value is not None})
