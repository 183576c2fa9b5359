"""Tests that both sides of the CRF benchmark compute the same; the measured numbers are not tested."""

import numpy as np
import pytest

from deconvnet_jax.errors import InputError
from deconvnet_jax.ops import CRF_PRESETS, dense_crf
from experiments.benchmarks import crf


@pytest.fixture(autouse=True)
def little(monkeypatch):
    """Makes images small and classes and rounds few."""
    for name, value in {"HEIGHT": 24, "WIDTH": 32, "CLASSES": 3, "ROUNDS": 2, "PHOTOGRAPHS": 1}.items():
        monkeypatch.setattr(crf, name, value)


def test_beside_pydensecrf(check_spread):
    pytest.importorskip("pydensecrf", reason="the alternative: pip install pydensecrf2")
    numbers = crf.run(None)
    assert numbers["alternative"] == "pydensecrf2"
    assert numbers["images"] == [[24, 32]]
    assert list(numbers["results"]) == list(CRF_PRESETS)
    for result in numbers["results"].values():
        assert result["agreement"] > 99.5
        check_spread(result["ratio"])
        for name in ("deconvnet_jax", "pydensecrf2"):
            parts = [result[f"{part}_seconds"][name]["min"] for part in ("build", "iterations")]
            assert 0 < sum(parts) <= result["seconds"][name]["max"]
    assert [row[0] for row in crf.tables(numbers)[0].rows][-1] == "pydensecrf2, usual"


def test_without_pydensecrf_there_is_no_ratio(monkeypatch):
    reason = "pydensecrf2 is not installed"
    monkeypatch.setattr(crf, "find_contenders", lambda: ({"deconvnet_jax": crf.ours}, reason))
    numbers = crf.run(None)
    for result in numbers["results"].values():
        assert result["ratio"] is result["agreement"] is None
        assert list(result["seconds"]) == ["deconvnet_jax"]
        assert 1 < result["vertices"][0][0] < 24 * 32
    assert "no comparison: pydensecrf2 is not installed" in crf.tables(numbers)[0].title


def test_another_crf_is_no_comparison():
    def other(scores, image, preset):
        return crf.Run(np.zeros(image.shape[:2], np.uint8), 1.0, 1.0)

    case = crf.draw_scores(24, 32, 0), crf.draw_image(0)
    contenders = {"deconvnet_jax": crf.ours, "pydensecrf2": other}
    with pytest.raises(RuntimeError, match=r"the two CRFs do not compute the same: \d+\.\d+ % of the labels are equal"):
        crf.measure(contenders, [case], CRF_PRESETS["usual"], 1)


def test_our_side_does_what_dense_crf_does():
    """Also, most labels are those of the highest scores."""
    image, scores = crf.draw_image(0), crf.draw_scores(24, 32, 0)
    unary = crf.unary_of(scores)
    np.testing.assert_allclose(np.exp(-unary).sum(-1), 1, atol=1e-4)
    q = np.asarray(dense_crf(unary, image, **CRF_PRESETS["usual"]))
    done = crf.ours(scores, image, CRF_PRESETS["usual"])
    np.testing.assert_array_equal(done.labels, q.argmax(-1))
    assert np.mean(done.labels == scores.argmax(-1)) > 0.5


def test_images():
    image = crf.draw_image(3)
    assert image.shape == (24, 32, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    assert (image != crf.draw_image(4)).any()


def test_a_folder_without_photographs(tmp_path):
    with pytest.raises(InputError, match=r"^--voc_root=.*: no photographs"):
        crf.run(tmp_path)
