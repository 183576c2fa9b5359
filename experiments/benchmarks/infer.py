"""Seconds from a photograph to its label map, stage by stage: this project, and the same steps in PyTorch and OpenCV.

    python -m experiments.benchmark infer [--batch_size=N] [--width=W] [--json=FILE]

One drawn image of 500x375, DeconvNet at 224x224 with 21 classes and random weights in float32 (on a GPU, products are
TF32 on both sides), its batch normalisation folded into the convolutions on both sides, 50 proposals. Stages:
"proposals": Edge Boxes, the same for both sides, measured once and counted for both. "network": crops, resized and
normalised, and the network. "aggregation": score maps resized back to their boxes, the maximum, labels on the host.
Between these, ours waits for the device. "total" does not: it is the proposals and one call of `Segmenter`; for the
other side, the sum. "CRF": the released parameters on the scores of ours, all classes made equally strong,
beside pydensecrf2 (C++); in addition to the total.

The other side is what one would write by hand: OpenCV cuts and resizes crops, the network is PyTorch's (channels_last,
inference mode; compiled on a GPU if that works), OpenCV resizes the score maps, NumPy takes the maximum. OpenCV does
that for boxes of whole pixels, so both sides get the enlarged, squared proposals rounded. Every stage must give the
same on both sides from the same input, or this fails; a network with random weights makes much of the rounding of one
stage, so whole passes are not held to that. Rounds alternate between the two, because a machine's speed drifts; the
ratio is that of each round.

Beside that, the cost of a `Segmenter` call with 10, 50 and 200 proposals: seconds, and the most memory in use
meanwhile, which must not grow: of the process on a CPU (Linux tells), else of the device.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from deconvnet_jax.data import VOC_CLASSES, draw_scene, enlarge, propose_boxes, square
from deconvnet_jax.inference import (
    InferenceSettings,
    Segmenter,
    canvas_scores,
    crop_windows,
    device_image,
    empty_canvas,
    fold_scores,
    network_scores,
)
from deconvnet_jax.inference.modes import ENLARGED
from deconvnet_jax.models import fold_batch_norm
from deconvnet_jax.ops.preprocess import MEAN_BGR

from . import crf, harness
from .harness import OURS, Numbers, Table, gigabytes
from .network import CLASSES, SIZE, check_width, make_net, make_variables

HEIGHT, WIDTH = 375, 500
COUNTS, COUNT = (10, 50, 200), 50  # proposals
ROUNDS = 3
THEIRS = "PyTorch, OpenCV"
LABELS_AGREE = 0.99  # of the pixels, at least
SCORES_DIFFER = 0.05  # of their own variation, at most: root mean squares
CROPS_DIFFER = 4.0  # of 255, at most: OpenCV 4 rounds places to 1/32 of a pixel


class Pass(NamedTuple):
    """One segmented image: seconds of every stage by its name, and scores float32 [H, W, K]."""

    seconds: dict[str, float]
    scores: np.ndarray


Segment = Callable[[np.ndarray], Pass]  # from windows [n, 4]
Network = Callable[[np.ndarray], np.ndarray]


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the time inside to a stage."""
    begin = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - begin


def run(batch_size: int | None, width: float) -> Numbers:
    """Measures every stage, and the cost of more proposals; the arguments are the flags of the command.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if the two sides do not agree.
    """
    check_width(width)
    setting = harness.setting()
    image = make_image()
    proposals_seconds, windows = find_windows(image)
    segmenter = make_segmenter(width, batch_size)
    batch_size = segmenter.settings.batch_size
    costs = {str(count): cost(segmenter, image, windows[:count]) for count in COUNTS}  # before PyTorch is here

    windows = windows[:COUNT]
    sides: dict[str, Segment] = {OURS: partial(our_pass, segmenter, image)}
    mode, agreement = {OURS: "jit"}, None
    if setting["alternative"]:
        setting["alternative"] += f", OpenCV {cv2.__version__}"
        network, mode[THEIRS] = their_network(width, batch_size)
        agreement = check_stages(segmenter, network, image, windows[:batch_size])
        sides[THEIRS] = partial(their_pass, network, image, batch_size)
    stages, scores = measure(sides, windows, batch_size, proposals_seconds)
    if agreement:
        agreement["labels_of_whole_passes"] = same_labels(scores[OURS], scores[THEIRS])
    return {
        **setting,
        "image": [WIDTH, HEIGHT],
        "proposals": len(windows),
        "batch_size": batch_size,
        "width": width,
        "batch_norm": "folded on both sides",
        "mode": mode,
        "stages": stages,
        "agreement": agreement,
        "crf": crf.measure_one(standardised(scores[OURS], scores[OURS]), image, ROUNDS),
        "costs": costs,
    }


def make_image() -> np.ndarray:
    """Returns a drawn scene, uint8 RGB [375, 500, 3]; the same every time."""
    return cv2.resize(draw_scene(np.random.default_rng(0))[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def find_windows(image: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Returns the seconds of every round to find COUNT proposals, and windows float32 [n, 4], as many as are needed.

    Windows are enlarged and square as those of `Segmenter`, but of whole pixels.
    """
    boxes, _ = propose_boxes(image, max(COUNTS))  # compiles, too
    squares = square(enlarge(boxes.astype(np.float64), ENLARGED))
    corners, sides = np.round(squares[:, :2]), np.maximum(np.round(squares[:, 2:] - squares[:, :2]), 1)
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        propose_boxes(image, COUNT)
        seconds.append(time.perf_counter() - begin)
    return seconds, np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def make_segmenter(width: float, batch_size: int | None) -> Segmenter:
    """Returns ours, which takes proposals as its windows."""
    net = make_net("float32", width)
    net, variables = fold_batch_norm(net, make_variables(net))
    batch_size = min(batch_size or InferenceSettings().batch_size, COUNT)  # the rest would be filled up
    settings = InferenceSettings(enlarge=1.0, num_proposals=max(COUNTS), batch_size=batch_size)
    one_device = jax.local_devices()[:1]  # as PyTorch
    return Segmenter(net, jax.device_put(variables), VOC_CLASSES, SIZE, settings, devices=one_device)


def cost(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray) -> Numbers:
    """Returns the seconds of a call that compiles nothing, and the most bytes in use meanwhile.

    A device tells the most since the program began: call this for rising numbers of windows.
    """
    batch_size = segmenter.settings.batch_size
    segmenter(image, np.tile(windows, (batch_size, 1))[:batch_size])
    harness.forget_peak()
    begin = time.perf_counter()
    segmenter(image, windows)
    seconds = time.perf_counter() - begin
    device = jax.devices()[0]
    peak = harness.process_peak() if device.platform == "cpu" else harness.device_peak(device)
    return {"seconds": seconds, "seconds_per_proposal": seconds / len(windows), "peak_bytes": peak}


def our_pass(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray) -> Pass:
    """Measures the total by one call; then the stages one by one, which is slower: they wait for each other."""
    seconds = defaultdict(float)
    with stage(seconds, "total"):
        result = segmenter(image, windows)
    if not np.array_equal(result.boxes, windows):
        raise RuntimeError("Segmenter changed windows that it should take as they are")
    variables, batch_size = segmenter.variables, segmenter.settings.batch_size
    network = network_scores(segmenter.net)
    on_device = device_image(image)
    canvas = empty_canvas(on_device.pixels.shape[0], on_device.pixels.shape[1], CLASSES, "max")
    for start in range(0, len(windows), batch_size):
        chosen = windows[start : start + batch_size]
        boxes, valid = np.tile(np.array([0, 0, 1, 1], np.float32), (batch_size, 1)), np.arange(batch_size) < len(chosen)
        boxes[: len(chosen)] = chosen
        with stage(seconds, "network"):
            crops = crop_windows(*on_device, jnp.asarray(boxes), SIZE, antialias=False)
            scores = jax.block_until_ready(network(variables, crops))
        with stage(seconds, "aggregation"):
            canvas = jax.block_until_ready(fold_scores(canvas, scores, boxes, valid, "max", False))
    with stage(seconds, "aggregation"):
        found = np.asarray(canvas_scores(canvas, "max"))[: image.shape[0], : image.shape[1]]
        found.argmax(axis=-1).astype(np.uint8)
    return Pass(seconds, result.scores)


def their_network(width: float, batch_size: int) -> tuple[Network, str]:
    """Returns PyTorch's network from crops float32 BGR to scores [n, S, S, K] with our weights, and how it is run."""
    import torch

    from . import reference

    device = reference.device()
    mean = torch.tensor(MEAN_BGR, device=device)[:, None, None]
    example = torch.zeros((batch_size, 3, SIZE, SIZE), device=device)
    score, _, mode = reference.forward_pass(make_variables(make_net("float32", width)), example)

    def scores(crops: np.ndarray) -> np.ndarray:
        found = score(torch.from_numpy(crops).to(device).permute(0, 3, 1, 2) - mean)
        return found.permute(0, 2, 3, 1).cpu().numpy()

    return scores, mode


def their_pass(network: Network, image: np.ndarray, batch_size: int, windows: np.ndarray) -> Pass:
    """Does the same by hand, with OpenCV and NumPy around a network."""
    seconds = defaultdict(float)
    with stage(seconds, "total"):
        photograph = image[..., ::-1].astype(np.float32)
        canvas = np.full((*image.shape[:2], CLASSES), -np.inf, np.float32)
        for start in range(0, len(windows), batch_size):
            boxes = windows[start : start + batch_size].astype(int).tolist()
            with stage(seconds, "network"):
                scores = network(np.stack([cut(photograph, *box) for box in boxes]))
            with stage(seconds, "aggregation"):
                for found, box in zip(scores, boxes, strict=True):
                    take_maximum(canvas, found, *box)
        with stage(seconds, "aggregation"):
            canvas[np.isneginf(canvas[..., 0])] = 0
            canvas.argmax(axis=-1).astype(np.uint8)
    return Pass(seconds, canvas)


def cut(image: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Returns a box of an image float32 [H, W, 3], resized to the network's input; black outside, without mixing."""
    height, width = image.shape[:2]
    scale_x, scale_y = (x1 - x0) / SIZE, (y1 - y0) / SIZE
    to_image = np.array([[scale_x, 0, x0 + 0.5 * scale_x - 0.5], [0, scale_y, y0 + 0.5 * scale_y - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image, to_image, (SIZE, SIZE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    samples = np.arange(SIZE) + 0.5
    rows, columns = y0 + samples * scale_y, x0 + samples * scale_x
    crop[(rows < 0) | (rows >= height)] = 0
    crop[:, (columns < 0) | (columns >= width)] = 0
    return crop


def take_maximum(canvas: np.ndarray, scores: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> None:
    """Puts the score map of a box into the canvas, where it is greater."""
    resized = cv2.resize(scores, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    place = canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    top, left = max(-y0, 0), max(-x0, 0)
    np.maximum(place, resized[top : top + place.shape[0], left : left + place.shape[1]], out=place)


def check_stages(segmenter: Segmenter, network: Network, image: np.ndarray, windows: np.ndarray) -> dict[str, float]:
    """Returns how far the sides' stages agree on one batch of windows: share of labels, differences in their units.

    Raises:
      RuntimeError: if that is not the same computation.
    """
    from .reference import full_precision

    photograph, mean = image[..., ::-1].astype(np.float32), np.array(MEAN_BGR, np.float32)
    theirs = np.stack([cut(photograph, *box) for box in windows.astype(int).tolist()])
    with full_precision():
        on_device = device_image(image)
        crops = np.asarray(crop_windows(*on_device, jnp.asarray(windows), SIZE))
        scores = np.asarray(network_scores(segmenter.net)(segmenter.variables, jnp.asarray(crops)))
        canvas = empty_canvas(on_device.pixels.shape[0], on_device.pixels.shape[1], CLASSES, "max")
        canvas = fold_scores(canvas, scores, windows, np.ones(len(windows), bool))
        other = network(crops + mean)
    found = {"crops": float(np.abs(crops + mean - theirs).max()), "network": difference(scores, other)}
    mine = np.asarray(canvas_scores(canvas, "max"))[: image.shape[0], : image.shape[1]]
    other = their_pass(lambda _: scores, image, len(windows), windows).scores
    found |= {"aggregation": difference(mine, other), "labels": same_labels(mine, other)}
    most = {"crops": CROPS_DIFFER, "network": SCORES_DIFFER, "aggregation": SCORES_DIFFER}
    if not (found["labels"] > LABELS_AGREE and all(found[name] < limit for name, limit in most.items())):
        raise RuntimeError(f"the two sides do not compute the same: {found}")
    return found


def difference(mine: np.ndarray, other: np.ndarray) -> float:
    """Returns the root mean square of the difference of scores [..., K], in units of their variation within a class."""
    return float(np.sqrt(np.mean((standardised(mine, mine) - standardised(other, mine)) ** 2)))


def same_labels(mine: np.ndarray, other: np.ndarray) -> float:
    """Returns the share of pixels where the same class is the best, all being equally strong."""
    return float(np.mean(standardised(mine, mine).argmax(-1) == standardised(other, mine).argmax(-1)))


def standardised(scores: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Returns scores [..., K] less each class's mean in `by`, over its deviation there: random weights favour one."""
    axes = tuple(range(by.ndim - 1))
    return (scores - by.mean(axes)) / by.std(axes)


def measure(
    sides: dict[str, Segment], windows: np.ndarray, batch_size: int, proposals_seconds: list[float]
) -> tuple[Numbers, dict[str, np.ndarray]]:
    """Returns "seconds" and "ratio" of every stage, and the last scores of both sides."""
    for segment in sides.values():
        segment(windows[:batch_size])  # compiles; chooses algorithms
    passes = harness.in_turns({name: partial(segment, windows) for name, segment in sides.items()}, ROUNDS)
    for of_side in passes.values():
        for (seconds, _), proposals in zip(of_side, proposals_seconds, strict=True):
            seconds["proposals"] = proposals
            seconds["total"] += proposals
    stages = {}
    for name in ("proposals", "network", "aggregation", "total"):
        seconds = {side: [one.seconds[name] for one in of_side] for side, of_side in passes.items()}
        spreads = {side: harness.spread(of_side) for side, of_side in seconds.items()}
        stages[name] = {"seconds": spreads, "ratio": harness.times_as_fast(seconds, THEIRS)}
    return stages, {side: of_side[-1].scores for side, of_side in passes.items()}


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each stage, and the cost of more proposals."""
    width, height = numbers["image"]
    text = f"An image of {width}x{height} with {numbers['proposals']} proposals, {numbers['batch_size']} at once"
    named = [(name, THEIRS, found) for name, found in numbers["stages"].items()]
    named.append((f"CRF, against {crf.THEIRS}", crf.THEIRS, numbers["crf"]))
    rows = [
        [name, *(harness.text(found["seconds"].get(side)) for side in (OURS, other)), harness.text(found["ratio"])]
        for name, other, found in named
    ]
    stages = Table(harness.title(text, numbers), ("seconds", OURS, THEIRS, "times as fast"), rows)
    reason = numbers["crf"]["no_alternative"]
    costs = [
        [count, f"{cost['seconds']:.2f}", f"{1000 * cost['seconds_per_proposal']:.0f}", gigabytes(cost["peak_bytes"])]
        for count, cost in numbers["costs"].items()
    ]
    columns = ("proposals", "seconds", "ms per proposal", "peak memory")
    return [stages, Table(f"CRF against nothing: {reason}" if reason else "", columns, costs)]
