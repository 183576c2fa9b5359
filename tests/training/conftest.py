"""A network with fewer layers, for what does not depend on their number."""

import pytest

from deconvnet_jax.models.deconvnet import DECODER_WIDTHS, ENCODER_WIDTHS


@pytest.fixture(scope="module")
def shallow():
    """DeconvNet and FCN-8s have one convolution per block: their step compiles in less than half the time."""
    with pytest.MonkeyPatch.context() as patch:
        for block in ENCODER_WIDTHS:
            patch.setitem(ENCODER_WIDTHS, block, ENCODER_WIDTHS[block][:1])
            patch.setitem(DECODER_WIDTHS, block, DECODER_WIDTHS[block][-1:])
        yield
