"""Checks the settings of inference: which values are refused, and that the config has all of them."""

from dataclasses import asdict, fields
from typing import get_args, get_type_hints

import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.inference import MODES, InferenceSettings, SettingValues, settings_from
from deconvnet_jax.inference.settings import KINDS
from deconvnet_jax.settings import Choice
from experiments.configs import default, demo, voc_stage2, voc_stage2_released, voc_two_stage_released


def test_the_configs_defaults_are_those_of_the_class():
    assert default.get_config().inference.to_dict() == asdict(InferenceSettings())
    assert voc_stage2.get_config().inference.mode == "paper"
    assert voc_stage2_released.get_config().inference.mode == "released"
    assert voc_two_stage_released.get_config().inference.mode == "released"
    assert demo.get_config().inference.mode == "whole_image"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "papers"}, f"inference.mode='papers': expected one of {', '.join(MODES)}"),
        ({"aggregation": "sum"}, "inference.aggregation='sum': expected one of max, mean"),
        ({"crf": "yes"}, "inference.crf='yes': expected one of none, released, usual"),
        ({"crf_sharpness": -1.0}, "inference.crf_sharpness=-1.0: expected a number from 0 to 100"),
        ({"num_proposals": 0}, "inference.num_proposals=0: expected a whole number from 1"),
        ({"batch_size": 2.5}, "inference.batch_size=2.5"),
        ({"max_side": True}, "inference.max_side=True"),
        ({"enlarge": 0.0}, "inference.enlarge=0.0: expected a number above 0"),
        ({"enlarge": float("nan")}, "inference.enlarge=nan"),
        (
            {"proposals": "boxes.npz"},
            "inference.proposals='boxes.npz': expected an existing file, or one of network, gradient",
        ),
        (
            {"mode": "released", "aggregation": "mean"},
            "inference.aggregation='mean': inference.mode='released' needs 'max'",
        ),
    ],
)
def test_unusable_settings(settings, message):
    with pytest.raises(InputError) as caught:
        InferenceSettings(**settings)
    assert str(caught.value).startswith(message)
    with pytest.raises(InputError):
        InferenceSettings().changed(**settings)


def test_a_file_of_proposals(tmp_path):
    file = tmp_path / "train.npz"
    file.write_bytes(b"")
    assert InferenceSettings(proposals=str(file)).proposals_path == file
    assert InferenceSettings(proposals="grid").proposals_path is None


def test_configs_of_other_versions():
    assert settings_from({}) == InferenceSettings()
    assert settings_from({"mode": "released", "of_later": 3, "crf": None}) == InferenceSettings(mode="released")


def test_editors_know_the_settings_and_their_choices():
    """The types repeat the table of settings, because editors and type checkers cannot read it."""
    types = get_type_hints(SettingValues)
    assert set(types) == set(KINDS) == {field.name for field in fields(InferenceSettings)}
    for name, kind in KINDS.items():
        if isinstance(kind, Choice):
            assert set(get_args(types[name])) == set(kind.names), name
    methods = get_args(types["proposals"])[0]
    assert set(get_args(methods)) == set(KINDS["proposals"].names)
