"""Tests the messages about arrays of a wrong shape or dtype, and that every function with arrays gives them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconvnet_jax import data, evaluation, inference, ops, visualization
from deconvnet_jax.array_checks import check_arrays
from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet, EdgeNetwork, FCN8s
from deconvnet_jax.proposals import edge_map
from deconvnet_jax.training import balanced_class_weights, segmentation_loss


def zeros(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def said(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((8, 9, 3), "images[None]"),
        ((2, 3, 8, 9), "images.transpose(0, 2, 3, 1)"),
        ((3, 8, 9), "images.transpose(1, 2, 0)[None]"),
        ((2, 8, 9, 1), "images.repeat(3, axis=-1)"),
        ((2, 8, 9, 4), "images[..., :3]"),
        ((8, 9), "images[None, ..., None].repeat(3, axis=-1)"),
        ((1, 2, 8, 9, 3), "images[0]"),
    ],
)
def test_the_advice_for_images_gives_images(shape, advice):
    """Runs the code of the advice: its result passes the same check."""
    message = said(check_arrays, "f", images=(zeros(*shape), "N H W 3", "float"))
    assert message.startswith(f"f: images has shape {list(shape)}; expected [N, H, W, 3]. ")
    assert message.endswith(f": {advice}")
    check_arrays("f", images=(eval(advice, {"images": zeros(*shape)}), "N H W 3", "float"))


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((5, 8, 9), "unary.transpose(1, 2, 0)"),
        ((5, 72), "unary.reshape(-1, 8, 9).transpose(1, 2, 0)"),
        ((9, 8, 5), "unary.swapaxes(-3, -2)"),
        ((1, 8, 9, 5), "unary[0]"),
    ],
)
def test_the_advice_for_scores_fits_the_image(shape, advice):
    message = said(ops.dense_crf, zeros(*shape), zeros(8, 9, 3, dtype=np.uint8))
    assert message.startswith(f"dense_crf: unary has shape {list(shape)}; expected [8, 9, K], to match image. ")
    assert message.endswith(f": {advice}")
    assert eval(advice, {"unary": zeros(*shape)}).shape == (8, 9, 5)


def test_a_wrong_size_without_an_obvious_remedy_gets_none():
    arrays = {
        "labels": (zeros(2, 8, 9, dtype=int), "N H W", "integer"),
        "logits": (zeros(2, 7, 9, 3), "N H W K", "float"),
    }
    assert said(check_arrays, "f", **arrays) == (
        "f: logits has shape [2, 7, 9, 3]; expected [2, 8, 9, K], to match labels"
    )


LABELS, LOGITS, IMAGE = zeros(2, 8, 8, dtype=int), zeros(2, 8, 8, 3), zeros(16, 16, 3, dtype=np.uint8)
NETWORKS = [net(num_classes=3, width=1 / 32, fc_features=4) for net in (DeconvNet, FCN8s)]


def initialised(net):
    return lambda images: jax.eval_shape(net.init, jax.random.key(0), images)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (ops.max_pool_with_indices, (zeros(8, 8, 3),), "max_pool_with_indices: x .* Add a batch dimension: x.None."),
        (
            ops.max_pool_with_indices,
            (LABELS[..., None],),
            r"max_pool_with_indices: x has dtype int64; .*astype\(jnp.float32",
        ),
        (ops.max_pool_with_indices, ([[1.0]],), "max_pool_with_indices: x is of type list; expected an array"),
        (
            ops.max_unpool,
            (zeros(1, 4, 4, 8), zeros(1, 4, 4, 7, dtype=int), (8, 8)),
            "max_unpool: indices .*to match pooled",
        ),
        (
            ops.max_unpool,
            (zeros(1, 4, 4, 8), zeros(1, 4, 4, 8), (8, 8)),
            "max_unpool: indices has dtype float32; expected integers",
        ),
        (ops.pool_windows, (zeros(8, 8, 3),), "pool_windows: x has shape"),
        (ops.unpool_windows, (zeros(1, 4, 4, 8), zeros(1, 4, 4, 8), (8, 8)), "unpool_windows: numbers has dtype"),
        (
            ops.unpool_windows,
            (zeros(1, 4, 4, 8), zeros(1, 4, 4, 8, dtype=int), (7, 8)),
            r"unpool_windows: output_size \(7, 8\)",
        ),
        (ops.window_positions, (zeros(4, 4, 8, dtype=int), 8), "window_positions: numbers has shape"),
        (ops.normalize_images, (zeros(3, 8, 8, dtype=np.uint8),), r"normalize_images: images .*transpose\(1, 2, 0\)"),
        (ops.channel_sums, (np.float32(3),), r"channel_sums: x has shape \[\]"),
        (ops.edge_normals, (zeros(8, 8, 3),), r"edge_normals: edges has shape \[8, 8, 3\]; expected \[H, W\]"),
        (ops.edge_normals, (zeros(0, 0),), "edge_normals: .* at least one pixel"),
        (ops.thin_edges, (zeros(8, 8), zeros(8, 9)), "thin_edges: normals .* to match edges"),
        *(
            (
                initialised(net),
                (zeros(1, 224, 224, 3, dtype=np.uint8),),
                rf"{type(net).__name__}: images has dtype uint8; .* normalize_images\(images\)",
            )
            for net in NETWORKS
        ),
        *(
            (initialised(net), (zeros(1, 3, 224, 224),), rf"{type(net).__name__}: images .*transpose\(0, 2, 3, 1\)")
            for net in NETWORKS
        ),
        (initialised(EdgeNetwork()), (zeros(1, 24, 32, 3),), "EdgeNetwork: images are 24x32; .* Pad them to 32x32"),
        (
            segmentation_loss,
            (LOGITS.transpose(0, 3, 1, 2), LABELS),
            r"segmentation_loss: logits .*logits.transpose\(0, 2, 3, 1\)",
        ),
        (
            segmentation_loss,
            (LOGITS, LABELS.astype(np.float32)),
            "segmentation_loss: labels has dtype float32; expected integers",
        ),
        (segmentation_loss, (LOGITS, LOGITS), r"segmentation_loss: labels .* labels.argmax\(-1\)"),
        (
            segmentation_loss,
            (LOGITS, LABELS, 255, [1.0, 2.0]),
            r"segmentation_loss: class_weights has shape \[2\]; .*\[3\]",
        ),
        (balanced_class_weights, (zeros(2, 2), 0.5), "balanced_class_weights: pixels"),
        (data.crop_window, (IMAGE.astype(np.float32), None, [0, 0, 4, 4], 8), "crop_window: image has dtype float32"),
        (data.crop_window, (IMAGE, zeros(8, 8, dtype=int), [0, 0, 4, 4], 8), "crop_window: label .* to match image"),
        (data.instance_boxes, (zeros(8, 8), None), "instance_boxes: label has dtype float32; expected integers"),
        (data.instance_boxes, (LABELS[0], LABELS), "instance_boxes: instances .* to match label"),
        (data.keep_class, (LABELS, None, 1, 1), "keep_class: label has shape"),
        (data.square, (zeros(4),), "square: boxes has shape"),
        (data.enlarge, (zeros(2, 5),), "enlarge: boxes has shape"),
        (edge_map, (zeros(3, 16, 16, dtype=np.uint8), "gradient"), "expected uint8 RGB|image"),
        (evaluation.object_scores, (LABELS[0], LABELS[0], LABELS), "object_scores: predictions has shape"),
        (evaluation.edge_scores, ([(zeros(8, 8), zeros(8, 9))],), "edge_scores: share .* to match edges"),
        (evaluation.box_recall, ([zeros(4)], [10], [0.5]), "box_recall: overlaps has shape"),
        (
            inference.crop_windows,
            (IMAGE.astype(np.float32), np.array([16, 16]), zeros(1, 4), 32),
            "crop_windows: image has dtype",
        ),
        (
            inference.mean_of_probabilities,
            (zeros(4, 3), zeros(4, 2)),
            "mean_of_probabilities: others .* to match scores",
        ),
        (inference.sample_scores, (zeros(8, 8), [0, 0, 4, 4], 8, 8), "sample_scores: scores has shape"),
        (visualization.activation_picture, (zeros(8, 8, 3), 70), "activation_picture: activations has shape"),
        (visualization.save_label_png, ("x.png", [[1]]), "the label map is of type list; expected an array"),
        (visualization.side_by_side, ([None], ["a"]), "picture 'a' is of type NoneType"),
    ],
)
def test_every_function_names_itself_and_the_argument(function, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.grad, jax.pmap])
def test_the_message_is_the_same_inside_jax(transform):
    """vmap and pmap take one axis away, and the message shows the shape that the function sees."""
    x = jnp.zeros((1, 8, 8, 3)) if transform in (jax.vmap, jax.pmap) else jnp.zeros((8, 8, 3))
    message = said(transform(lambda x: ops.max_pool_with_indices(x)[0].sum()), x)
    assert message == (
        "max_pool_with_indices: x has shape [8, 8, 3]; expected [N, H, W, C]. Add a batch dimension: x[None]"
    )


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: ops.box_iou(x, x),
        lambda x: ops.rank_varied(x, np.ones(4), 1.0, 2)[0],
        ops.edge_normals,
        lambda x: ops.thin_edges(x, x),
    ],
    ids=["box_iou", "rank_varied", "edge_normals", "thin_edges"],
)
def test_functions_that_numpy_computes_say_so(transform, function):
    assert "NumPy computes this, so it works neither in jit nor under vmap" in said(
        transform(function), jnp.ones((2, 4, 4))
    )


def test_a_tensor_of_pytorch_is_told_how_to_convert():
    torch = pytest.importorskip("torch", reason="tests/requirements-reference.txt")
    assert "x is of type Tensor; expected an array: convert it by .numpy()" in said(
        ops.max_pool_with_indices, torch.zeros(1, 8, 8, 3)
    )
