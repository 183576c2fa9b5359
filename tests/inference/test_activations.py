"""Checks that the decoder's maps lead to the scores step by step."""

import numpy as np

from deconvnet_jax.inference import decoder_activations
from deconvnet_jax.models import DeconvNet, fold_batch_norm

SHAPES = {"deconv5_3": 4, "unpool4": 8, "deconv4_3": 8, "unpool3": 16, "deconv3_3": 16, "unpool2": 32}
SHAPES |= {"deconv2_2": 32, "unpool1": 64, "deconv1_2": 64, "scores": 64}


def assert_close(found, expected):
    """Compares eight windows; in up to two of them, rounding may choose between two nearly equal maxima."""
    found, expected = (np.asarray(values).reshape(8, -1) for values in (found, expected))
    deviations = np.abs(found - expected).max(axis=1) / np.abs(expected).max()
    assert (deviations < 1e-3).sum() >= 6, deviations


def test_maps_lead_to_the_scores(rng, narrow_net):
    net, variables, _ = narrow_net
    windows = rng.normal(0, 50, (8, 64, 64, 3)).astype(np.float32)
    maps = {name: np.asarray(found) for name, found in decoder_activations(net, variables, windows).items()}
    assert {name: found.shape[1] for name, found in maps.items()} == SHAPES
    assert list(maps) == list(SHAPES)
    assert_close(maps["scores"], net.apply(variables, windows))
    layer = variables["params"]["seg-score-voc"]
    scores = maps["deconv1_2"] @ np.asarray(layer["kernel"])[0, 0] + np.asarray(layer["bias"])
    np.testing.assert_allclose(scores, maps["scores"], rtol=1e-3, atol=1e-3)
    for unpooled, source in (("unpool4", "deconv5_3"), ("unpool3", "deconv4_3"), ("unpool1", "deconv2_2")):
        assert maps[source].min() >= 0
        cells = maps[unpooled].reshape(8, SHAPES[source], 2, SHAPES[source], 2, -1)
        np.testing.assert_allclose(cells.sum((2, 4)), maps[source], rtol=1e-5)  # each value is somewhere in its cell
        assert ((cells != 0).sum((2, 4)) <= 1).all()


def test_a_folded_network(rng, narrow_net):
    net, variables, _ = narrow_net
    windows = rng.normal(0, 50, (8, 32, 32, 3)).astype(np.float32)
    expected = decoder_activations(net, variables, windows)
    folded, folded_variables = fold_batch_norm(net, variables)
    assert isinstance(folded, DeconvNet)
    for name, found in decoder_activations(folded, folded_variables, windows).items():
        assert_close(found, expected[name])
