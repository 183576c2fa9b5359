"""Measures the seconds from a photograph to its label map, and compares them with the same steps in PyTorch and OpenCV.

    python -m experiments.benchmark infer [--batch_size=N] [--width=W] [--json=FILE]

One drawn image of 500x375 with 50 proposals; DeconvNet at 224x224 with 21 classes and random weights in float32 (TF32
products on a GPU, on both sides). On both sides batch normalisation is folded into the convolutions. Stages:

- "proposals": Edge Boxes. It is the same for both sides, measured once and counted for both.
- "network": crops are cut, resized and normalised, and the network scores them.
- "aggregation": score maps are resized back to their boxes, the maximum is taken, and labels reach the host.
- "total": the proposals and one call of `Segmenter`; for the other side, the sum of the stages. The stages of this
  project wait for the device, so they take longer than the total.
- "CRF": the released parameters on this project's scores, all classes scaled alike, compared with pydensecrf2 (C++). It
  is not part of the total.

The other side is a program that a user would write. OpenCV cuts and resizes crops; the network is PyTorch's, in
inference mode with channels_last, and with torch.compile on a GPU if that works. OpenCV resizes the score maps, and
NumPy takes the maximum. OpenCV needs boxes of whole pixels, so both sides get rounded proposals.

Given the same input, each stage must give the same result on both sides, or the benchmark fails. Whole passes may
differ, because random weights amplify rounding. Rounds alternate between the two sides, because the speed of a machine
drifts; the ratio is that of each round.

A second table has the cost of a `Segmenter` call with 10, 50 and 200 proposals: seconds and peak memory, which must not
grow. Peak memory is that of the process on a CPU (on Linux only), otherwise that of the device.
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
from .agreement import difference, same_labels, standardised
from .harness import OURS, Numbers, Table, gigabytes
from .network import CLASSES, SIZE, check_width, make_net, make_variables

HEIGHT, WIDTH = 375, 500
COUNTS, COUNT = (10, 50, 200), 50  # proposals: for the cost of a call, and for the comparison
ROUNDS = 3
THEIRS = "PyTorch, OpenCV"
LABELS_AGREE = 0.99  # smallest share of pixels with equal labels
SCORES_DIFFER = 0.05  # largest root mean square of the difference of scores, in standard deviations of a class's scores
CROPS_DIFFER = 4.0  # largest difference of crops, whose values are 0 to 255: OpenCV 4 rounds places to 1/32 of a pixel


class Pass(NamedTuple):
    """Seconds of every stage, by its name, and scores float32 [H, W, K] of one segmented image."""

    seconds: dict[str, float]
    scores: np.ndarray


Segment = Callable[[np.ndarray], Pass]  # takes windows [n, 4]
Network = Callable[[np.ndarray], np.ndarray]  # takes crops float32 BGR [n, S, S, 3], returns scores [n, S, S, K]


@contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Measures the time inside the context and adds it to a stage.

    Args:
      seconds: of every stage so far; it is changed.
      name: of the stage.

    Yields:
      None.
    """
    begin = time.perf_counter()
    yield
    seconds[name] += time.perf_counter() - begin


def run(batch_size: int | None, width: float) -> Numbers:
    """Measures every stage and the cost of more proposals.

    Args:
      batch_size: windows per forward pass, at most 50; None takes the default of `InferenceSettings`.
      width: factor on the channels of all layers, above 0 and at most 1.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if a stage gives different results on the two sides.
    """
    check_width(width)
    setting = harness.setting()
    image = make_image()
    proposals_seconds, windows = find_windows(image)
    segmenter = make_segmenter(width, batch_size)
    batch_size = segmenter.settings.batch_size
    costs = {str(count): cost(segmenter, image, windows[:count]) for count in COUNTS}  # before PyTorch takes memory

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
    """Returns a drawn scene, uint8 RGB [375, 500, 3], the same one every time."""
    return cv2.resize(draw_scene(np.random.default_rng(0))[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def find_windows(image: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Finds proposals, measures the time, and makes windows of them.

    Args:
      image: uint8 RGB [H, W, 3].

    Returns:
      The seconds of every round in which COUNT proposals were found; and windows float32 [n, 4] with n up to 200,
      enlarged and square as in `Segmenter`, but with whole pixels as corners.
    """
    boxes, _ = propose_boxes(image, max(COUNTS))  # The first call compiles.
    squares = square(enlarge(boxes.astype(np.float64), ENLARGED))
    corners, sides = np.round(squares[:, :2]), np.maximum(np.round(squares[:, 2:] - squares[:, :2]), 1)
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        propose_boxes(image, COUNT)
        seconds.append(time.perf_counter() - begin)
    return seconds, np.concatenate([corners, corners + sides], axis=1).astype(np.float32)


def make_segmenter(width: float, batch_size: int | None) -> Segmenter:
    """Returns this project's `Segmenter` on one device; it does not enlarge proposals.

    Args:
      width: factor on the channels of all layers.
      batch_size: windows per forward pass, at most 50; None takes the default.
    """
    net = make_net("float32", width)
    net, variables = fold_batch_norm(net, make_variables(net))
    batch_size = min(batch_size or InferenceSettings().batch_size, COUNT)  # A larger batch would be filled up.
    settings = InferenceSettings(enlarge=1.0, num_proposals=max(COUNTS), batch_size=batch_size)
    one_device = jax.local_devices()[:1]  # as PyTorch uses
    return Segmenter(net, jax.device_put(variables), VOC_CLASSES, SIZE, settings, devices=one_device)


def cost(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray) -> Numbers:
    """Measures one call of a segmenter without compilation.

    Args:
      segmenter: the result of `make_segmenter`.
      image: uint8 RGB [H, W, 3].
      windows: float32 [n, 4].

    Returns:
      "seconds", "seconds_per_proposal" and "peak_bytes" (None if unknown). Accelerators report the peak since the
      program started, so call this with increasing numbers of windows.
    """
    batch_size = segmenter.settings.batch_size
    segmenter(image, np.tile(windows, (batch_size, 1))[:batch_size])

    def seconds_of_call() -> float:
        begin = time.perf_counter()
        segmenter(image, windows)
        return time.perf_counter() - begin

    seconds, process_peak = harness.peak_during(seconds_of_call)
    device = jax.devices()[0]
    peak = process_peak if device.platform == "cpu" else harness.device_peak(device)
    return {"seconds": seconds, "seconds_per_proposal": seconds / len(windows), "peak_bytes": peak}


def our_pass(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray) -> Pass:
    """Segments an image with one call, which is the total, and then runs each stage separately.

    Args:
      segmenter: the result of `make_segmenter`.
      image: uint8 RGB [H, W, 3].
      windows: float32 [n, 4], corners in whole pixels.

    Returns:
      Seconds of "total", "network" and "aggregation", and the scores of the call.

    Raises:
      RuntimeError: if the segmenter did not take the windows as they are.
    """
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
    """Returns PyTorch's network with this project's weights.

    Args:
      width: factor on the channels of all layers.
      batch_size: crops per forward pass.

    Returns:
      A function from crops float32 BGR [n, S, S, 3], 0..255, to scores float32 [n, S, S, K]; and how the network runs,
      such as "torch.compile".
    """
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
    """Segments an image with OpenCV, NumPy and a network, and measures every stage.

    Args:
      network: scores crops; the result of `their_network`.
      image: uint8 RGB [H, W, 3].
      batch_size: windows per forward pass.
      windows: float32 [n, 4], corners in whole pixels.

    Returns:
      Seconds of "total", "network" and "aggregation", and the scores.
    """
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
    """Cuts a box out of an image and resizes it to the network's input.

    Args:
      image: float32 [H, W, 3].
      x0: left edge of the box in pixels; it may lie outside the image.
      y0: upper edge.
      x1: right edge, exclusive.
      y1: lower edge, exclusive.

    Returns:
      float32 [224, 224, 3]; pixels beyond the image are black and not blended with its border.
    """
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
    """Resizes the score map of a box and takes the maximum of it and the canvas, in place.

    Args:
      canvas: float32 [H, W, K], the scores of the image so far; it is changed.
      scores: float32 [S, S, K], of the box.
      x0: left edge of the box in pixels; it may lie outside the image.
      y0: upper edge.
      x1: right edge, exclusive.
      y1: lower edge, exclusive.
    """
    resized = cv2.resize(scores, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    place = canvas[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    top, left = max(-y0, 0), max(-x0, 0)
    np.maximum(place, resized[top : top + place.shape[0], left : left + place.shape[1]], out=place)


def check_stages(segmenter: Segmenter, network: Network, image: np.ndarray, windows: np.ndarray) -> dict[str, float]:
    """Checks that each stage gives the same on both sides, given the same input.

    Args:
      segmenter: the result of `make_segmenter`.
      network: the result of `their_network`.
      image: uint8 RGB [H, W, 3].
      windows: float32 [n, 4], one batch; corners in whole pixels.

    Returns:
      "crops": largest difference, of values 0 to 255. "network" and "aggregation": `difference` of the scores.
      "labels": share of pixels with equal labels.

    Raises:
      RuntimeError: if a difference is above its limit.
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


def measure(
    sides: dict[str, Segment], windows: np.ndarray, batch_size: int, proposals_seconds: list[float]
) -> tuple[Numbers, dict[str, np.ndarray]]:
    """Measures both sides in alternating rounds.

    Args:
      sides: by name, a function that segments the image with given windows.
      windows: float32 [n, 4].
      batch_size: windows of the call that compiles.
      proposals_seconds: seconds of the proposals in every round; they are added to both sides.

    Returns:
      By stage, "seconds" (by side, `harness.spread` of the rounds) and "ratio" (`harness.times_as_fast`); and by side,
      the scores of the last round, float32 [H, W, K].
    """
    for segment in sides.values():
        segment(windows[:batch_size])  # The first call compiles and chooses algorithms.
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
    """Returns a table of the stages and a table of the cost of more proposals, from the numbers of `run`."""
    width, height = numbers["image"]
    text = f"An image of {width}x{height} with {numbers['proposals']} proposals, {numbers['batch_size']} at once"
    named = [(name, THEIRS, found) for name, found in numbers["stages"].items()]
    named.append((f"CRF, compared with {crf.THEIRS}", crf.THEIRS, numbers["crf"]))
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
    return [stages, Table(f"CRF without comparison: {reason}" if reason else "", columns, costs)]
