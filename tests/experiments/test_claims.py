"""Runs the experiments on the paper's claims with few steps and scenes; their scores are not tested."""

import json

import numpy as np
import pytest
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import network_from_config
from experiments.tasks import claims
from experiments.tasks.claims import PAPER, STAGE2, WHOLE, Row, Training

pytestmark = pytest.mark.end_to_end

GROWTH = {"learning_rate": 1000.0, "weight_decay": 1.0, "rates": (("seg-score", 1000.0),)}  # -1e6 times per step
DIVERGING = Training("diverging", {**{f"optimizer.{key}": value for key, value in GROWTH.items()}, "log_every": 1})
TINY = {"model.width": 1 / 32, "model.fc_features": 4, "data.resize_size": 36, "data.crop_size": 32, "batch_size": 4}


@pytest.fixture
def small(monkeypatch, shallow_here, shared_steps):
    """Makes networks narrow and draws six scenes."""
    config_of = claims.config_of

    def tiny(*arguments):
        config = config_of(*arguments)
        config.update_from_flattened_dict(TINY)
        return config

    for name, value in {"TRAIN_SCENES": 4, "VAL_SCENES": 2, "config_of": tiny}.items():
        monkeypatch.setattr(claims, name, value)
    rows = [
        Row("whole", WHOLE, {}),
        Row("proposals", STAGE2, {**PAPER, "num_proposals": 3}),
        Row("too fast", DIVERGING, {}),
        Row("after that", Training("after", {}, 1.0, DIVERGING), {}),
    ]
    monkeypatch.setattr(claims, "EXPERIMENTS", {"small": rows})


@pytest.mark.slow
def test_every_row_has_its_measures_and_nothing_is_done_twice(small, tmp_path, capsys, monkeypatch):
    found = claims.run("small", tmp_path, seeds=1, steps=20)
    assert list(found) == ["whole", "proposals", "too fast", "after that"]
    for scores in found["whole"] + found["proposals"]:
        assert 0 < scores["mean_iou"] < 1
        assert set(scores) == set(claims.MEASURES)
    assert {score for scores in found["too fast"] + found["after that"] for score in scores.values()} == {None}
    saved = json.loads((tmp_path / "small.json").read_text())
    assert saved["rows"] == found
    assert (saved["steps"], saved["val_scenes"]) == (20, 2)
    with Image.open(tmp_path / "small.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    printed = capsys.readouterr().out
    assert "diverged" in printed
    runs = {path.name for path in (tmp_path / "steps20/runs").iterdir()}
    assert {"whole_image.seed0", "stage1_half.seed0", "stage2_half.seed0", "diverging.seed0.diverged"} <= runs
    config = json.loads((tmp_path / "steps20/runs/stage2_half.seed0/config.json").read_text())
    assert (config["num_steps"], config["seed"]) == (10, 0)
    assert config["init_from"].endswith("stage1_half.seed0")

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(claims, "train", refuse)
    assert claims.run("small", tmp_path, seeds=1, steps=20) == found


def test_every_training_is_valid(tmp_path):
    """All keys and networks exist, and a name stands for one set of settings."""
    trainings = [row.training for rows in claims.EXPERIMENTS.values() for row in rows] + [claims.STAGE1]
    by_name = {training.name: training for training in trainings}
    assert all(by_name[training.name] == training for training in trainings)
    for training in by_name.values():
        config = claims.config_of(training, tmp_path, 3, 1000)
        assert config.num_steps == 1000 * training.share
        assert config.optimizer.drops[1] < config.num_steps
        network_from_config({**config.model.to_dict(), "num_classes": 6})


def test_spread():
    assert claims.spread([0.5, 0.7, 0.6]) == "60.0 (50.0 to 70.0)"
    assert claims.spread([None, None]) == "diverged"
    assert claims.spread([None, 0.5]) == "50.0 (50.0 to 50.0); 1 of 2 diverged"


def test_an_unknown_experiment(tmp_path):
    with pytest.raises(InputError, match=r"expected the name of one experiment .*; got speed"):
        claims.run_one(["speed"], tmp_path, seeds=1, steps=20)
