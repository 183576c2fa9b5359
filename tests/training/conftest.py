"""Networks with fewer layers, for what does not depend on their number."""

import pytest

from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS
from deconvnet_jax.training import state


def _one_layer_per_block():
    with pytest.MonkeyPatch.context() as patch:
        for block in ENCODER_WIDTHS:
            patch.setitem(ENCODER_WIDTHS, block, ENCODER_WIDTHS[block][:1])
            patch.setitem(DECODER_WIDTHS, block, DECODER_WIDTHS[block][-1:])
        state._initialised.clear_cache()  # of networks with the same fields
        yield
    state._initialised.clear_cache()


@pytest.fixture(scope="module")
def shallow():
    """In the whole file, DeconvNet and FCN-8s have one layer per block: steps compile in less than half the time."""
    yield from _one_layer_per_block()


@pytest.fixture
def shallow_here():
    """The same in one test."""
    yield from _one_layer_per_block()
