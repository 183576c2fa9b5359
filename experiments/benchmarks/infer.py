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

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

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
from experiments.benchmarks import crf, machine
from experiments.benchmarks.train import (
    CLASSES,
    OURS,
    SIZE,
    check_width,
    compiled,
    find_torch,
    make_net,
    make_variables,
    middle,
    spread,
    torch_network,
)

HEIGHT, WIDTH = 375, 500
COUNTS, COUNT = (10, 50, 200), 50  # proposals
ROUNDS = 3
THEIRS = "PyTorch, OpenCV"
LABELS_AGREE = 0.99  # of the pixels, at least
SCORES_DIFFER = 0.05  # of their own variation, at most: root mean squares
CROPS_DIFFER = 4.0  # of 255, at most: OpenCV 4 rounds places to 1/32 of a pixel


class Pass(NamedTuple):
    """One image, segmented with a look at the clock.

    Attributes:
      seconds: of every stage, by its name.
      scores: float32 [H, W, K].
    """

    seconds: dict[str, float]
    scores: np.ndarray


Segment = Callable[[np.ndarray], Pass]  # from windows [n, 4]
Network = Callable[[np.ndarray], np.ndarray]


@dataclass
class Stopwatch:
    """Seconds of stages that come again and again, added up by name."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time inside to a stage."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin


def run(batch_size: int | None, width: float) -> dict[str, Any]:
    """Measures and prints two tables; returns their numbers.

    Args:
      batch_size: windows that the network sees at once; None: what `Segmenter` does.
      width: multiplies the width of all layers; 1 is the original.

    Raises:
      InputError: for a width out of range.
      RuntimeError: if the two sides do not agree.
    """
    check_width(width)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory of the same GPU
    device = jax.devices()[0]
    image = make_image()
    proposals_seconds, windows = find_windows(image)
    segmenter = make_segmenter(width, batch_size)
    batch_size = segmenter.settings.batch_size
    costs = {str(count): cost(segmenter, image, windows[:count], device) for count in COUNTS}  # before PyTorch is here

    windows = windows[:COUNT]
    sides: dict[str, Segment] = {OURS: partial(our_pass, segmenter, image)}
    torch, reason = find_torch(device.platform)
    mode = {OURS: "jit"}
    agreement = None
    if torch:
        where = "cpu" if device.platform == "cpu" else "cuda"
        network, mode[THEIRS] = their_network(torch, width, batch_size, where)
        agreement = check_stages(torch, segmenter, network, image, windows[:batch_size])
        sides[THEIRS] = partial(their_pass, network, image, batch_size)
    seconds, scores = compare(sides, windows, batch_size, proposals_seconds)
    if torch:
        agreement["labels_of_whole_passes"] = same_labels(scores[OURS], scores[THEIRS])
    numbers = {
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "image": [WIDTH, HEIGHT],
        "proposals": len(windows),
        "batch_size": batch_size,
        "width": width,
        "batch_norm": "folded on both sides",
        "alternative": f"PyTorch {torch.__version__}, OpenCV {cv2.__version__}" if torch else None,
        "no_alternative": reason,
        "mode": mode,
        "stages": {name: summary(of_name) for name, of_name in seconds.items()},
        "agreement": agreement,
        "crf": crf.measure_one(standardised(scores[OURS], scores[OURS]), image, ROUNDS),
        "costs": costs,
    }
    print_tables(numbers)
    return numbers


def make_image() -> np.ndarray:
    """A drawn scene, uint8 RGB [375, 500, 3]; the same every time."""
    return cv2.resize(draw_scene(np.random.default_rng(0))[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def find_windows(image: np.ndarray) -> tuple[list[float], np.ndarray]:
    """Seconds of every round to find COUNT proposals; windows float32 [n, 4] around as many as are ever needed.

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
    """Ours, which takes proposals as its windows."""
    net = make_net("float32", width)
    net, variables = fold_batch_norm(net, make_variables(net))
    batch_size = min(batch_size or InferenceSettings().batch_size, COUNT)  # the rest would be filled up
    settings = InferenceSettings(enlarge=1.0, num_proposals=max(COUNTS), batch_size=batch_size)
    one_device = jax.local_devices()[:1]  # as PyTorch
    return Segmenter(net, jax.device_put(variables), VOC_CLASSES, SIZE, settings, devices=one_device)


def cost(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray, device: jax.Device) -> dict[str, Any]:
    """Seconds of a call that compiles nothing, and the most bytes in use meanwhile (None where nobody tells).

    A device tells the most since the program began: call this for rising numbers of windows.
    """
    batch_size = segmenter.settings.batch_size
    segmenter(image, np.tile(windows, (batch_size, 1))[:batch_size])
    machine.forget_peak()
    begin = time.perf_counter()
    segmenter(image, windows)
    seconds = time.perf_counter() - begin
    peak = (
        machine.process_peak() if device.platform == "cpu" else (device.memory_stats() or {}).get("peak_bytes_in_use")
    )
    return {"seconds": seconds, "seconds_per_proposal": seconds / len(windows), "peak_bytes": peak}


def our_pass(segmenter: Segmenter, image: np.ndarray, windows: np.ndarray) -> Pass:
    """The total by one call; then the stages one by one, which is slower: they wait for each other."""
    watch = Stopwatch()
    with watch.stage("total"):
        result = segmenter(image, windows)
    if not np.array_equal(result.boxes, windows):
        raise RuntimeError("Segmenter changed windows that it should take as they are")
    variables, batch_size = segmenter.variables, segmenter.settings.batch_size
    network = network_scores(segmenter.net)
    on_device = device_image(image)
    canvas = empty_canvas(*on_device.pixels.shape[:2], CLASSES, "max")
    for start in range(0, len(windows), batch_size):
        chosen = windows[start : start + batch_size]
        boxes, valid = np.tile(np.float32([0, 0, 1, 1]), (batch_size, 1)), np.arange(batch_size) < len(chosen)
        boxes[: len(chosen)] = chosen
        with watch.stage("network"):
            crops = crop_windows(*on_device, jnp.asarray(boxes), SIZE, antialias=False)
            scores = jax.block_until_ready(network(variables, crops))
        with watch.stage("aggregation"):
            canvas = jax.block_until_ready(fold_scores(canvas, scores, boxes, valid, "max", False))
    with watch.stage("aggregation"):
        found = np.asarray(canvas_scores(canvas, "max"))[: image.shape[0], : image.shape[1]]
        found.argmax(axis=-1).astype(np.uint8)
    return Pass(watch.seconds, result.scores)


def their_network(torch: Any, width: float, batch_size: int, device: str) -> tuple[Network, str]:
    """The network in PyTorch with our weights, from crops float32 BGR to scores [n, S, S, K]; and how it is run."""
    on_gpu = device == "cuda"
    if on_gpu:
        torch.backends.cudnn.benchmark = True
        use_tf32(torch)
    variables = make_variables(make_net("float32", width))
    network = fused(torch, torch_network(torch, variables)).to(device, memory_format=torch.channels_last)
    mean = torch.tensor(MEAN_BGR, device=device)[:, None, None]

    def scores(forward: Any, crops: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(crops).to(device).permute(0, 3, 1, 2) - mean
            found = forward(x.contiguous(memory_format=torch.channels_last))
            return found.permute(0, 2, 3, 1).cpu().numpy()

    nothing = np.zeros((batch_size, SIZE, SIZE, 3), np.float32)
    forward, mode = compiled(torch, network, lambda fast: scores(fast, nothing)) if on_gpu else (network, "eager")
    return lambda crops: scores(forward, crops), mode


def fused(torch: Any, network: Any) -> Any:
    """Batch normalisation folded into the layers before it, by PyTorch's own function."""
    network.eval()
    for name, norm in network.norms.items():
        layer = network.layers[name]
        transposed = isinstance(layer, torch.nn.ConvTranspose2d)
        weights = torch.nn.utils.fusion.fuse_conv_bn_weights(
            layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transposed
        )
        layer.weight, layer.bias = weights
        network.norms[name] = torch.nn.Identity()
    return network


def their_pass(network: Network, image: np.ndarray, batch_size: int, windows: np.ndarray) -> Pass:
    """The same by hand, with OpenCV and NumPy around a network."""
    watch = Stopwatch()
    height, width = image.shape[:2]
    with watch.stage("total"):
        photograph = image[..., ::-1].astype(np.float32)
        canvas = np.full((height, width, CLASSES), -np.inf, np.float32)
        for start in range(0, len(windows), batch_size):
            boxes = windows[start : start + batch_size]
            with watch.stage("network"):
                scores = network(np.stack([cut(photograph, *box) for box in boxes.astype(int).tolist()]))
            with watch.stage("aggregation"):
                for found, box in zip(scores, boxes.astype(int).tolist(), strict=True):
                    take_maximum(canvas, found, *box)
        with watch.stage("aggregation"):
            canvas[np.isneginf(canvas[..., 0])] = 0
            canvas.argmax(axis=-1).astype(np.uint8)
    return Pass(watch.seconds, canvas)


def cut(image: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """A box of an image, float32 [H, W, 3], resized to the network's input; black outside, which is not mixed in."""
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


def check_stages(
    torch: Any, segmenter: Segmenter, network: Network, image: np.ndarray, windows: np.ndarray
) -> dict[str, float]:
    """How far the two sides' stages agree on one batch of windows: share of labels, differences in their units.

    Raises:
      RuntimeError: if that is not the same computation.
    """
    photograph, mean = image[..., ::-1].astype(np.float32), np.float32(MEAN_BGR)
    with full_precision(torch):
        on_device = device_image(image)
        crops = np.asarray(crop_windows(*on_device, jnp.asarray(windows), SIZE))
        scores = np.asarray(network_scores(segmenter.net)(segmenter.variables, crops))
        canvas = empty_canvas(*on_device.pixels.shape[:2], CLASSES, "max")
        canvas = fold_scores(canvas, scores, windows, np.ones(len(windows), bool))
        found = {
            "crops": float(
                np.abs(crops + mean - [cut(photograph, *box) for box in windows.astype(int).tolist()]).max()
            ),
            "network": difference(scores, network(crops + mean)),
        }
    mine = np.asarray(canvas_scores(canvas, "max"))[: image.shape[0], : image.shape[1]]
    other = their_pass(lambda _: scores, image, len(windows), windows).scores
    found |= {"aggregation": difference(mine, other), "labels": same_labels(mine, other)}
    most = {"crops": CROPS_DIFFER, "network": SCORES_DIFFER, "aggregation": SCORES_DIFFER}
    if not (found["labels"] > LABELS_AGREE and all(found[stage] < limit for stage, limit in most.items())):
        raise RuntimeError(f"the two sides do not compute the same: {found}")
    return found


@contextmanager
def full_precision(torch: Any) -> Iterator[None]:
    """No TF32 on either side: a network with random weights makes it look like another computation.

    PyTorch then computes eagerly, because a compiled network would be compiled again for another precision.
    """
    if jax.default_backend() == "cpu":  # has none; our programs would be compiled again
        yield
        return
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    with jax.default_matmul_precision("highest"), torch.compiler.set_stance("force_eager"):
        yield
    use_tf32(torch)


def use_tf32(torch: Any) -> None:
    """What XLA does by default."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True


def difference(mine: np.ndarray, other: np.ndarray) -> float:
    """The root mean square of the difference of scores [..., K], in units of their variation within a class."""
    return float(np.sqrt(np.mean((standardised(mine, mine) - standardised(other, mine)) ** 2)))


def same_labels(mine: np.ndarray, other: np.ndarray) -> float:
    """The share of pixels where the same class is the best, all being equally strong."""
    return float(np.mean(standardised(mine, mine).argmax(-1) == standardised(other, mine).argmax(-1)))


def standardised(scores: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Scores [..., K] less the mean of every class `by` some scores, over its deviation: random weights favour one."""
    axes = tuple(range(by.ndim - 1))
    return (scores - by.mean(axes)) / by.std(axes)


def compare(
    sides: dict[str, Segment], windows: np.ndarray, batch_size: int, proposals_seconds: list[float]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, np.ndarray]]:
    """Seconds of every round [stage][side], and the scores of both sides."""
    for segment in sides.values():
        segment(windows[:batch_size])  # compiles; chooses algorithms
    scores = {}
    seconds: dict[str, dict[str, list[float]]] = {
        stage: {name: [] for name in sides} for stage in ("proposals", "network", "aggregation", "total")
    }
    for proposals in proposals_seconds:
        for name, segment in sides.items():
            measured, scores[name] = segment(windows)
            measured |= {"proposals": proposals, "total": proposals + measured["total"]}
            for stage, of_stage in seconds.items():
                of_stage[name].append(measured[stage])
    return seconds, scores


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and ranges over the rounds; "ratio" is how many times as fast as the other side ours is."""
    ratio = None
    if THEIRS in seconds:
        ratio = middle([theirs / ours for ours, theirs in zip(seconds[OURS], seconds[THEIRS], strict=True)])
    return {"seconds": {name: middle(of_name) for name, of_name in seconds.items()}, "ratio": ratio}


def print_tables(numbers: dict[str, Any]) -> None:
    """On stderr: stdout is for the JSON."""
    console = Console(stderr=True, width=110)
    text = f"An image of {WIDTH}x{HEIGHT} with {numbers['proposals']} proposals, {numbers['batch_size']} at once"
    machine.print_heading(console, text, numbers)
    table = Table("seconds", OURS, THEIRS, "times as fast")
    for stage, result in numbers["stages"].items():
        table.add_row(stage, *cells(result, THEIRS))
    table.add_row(f"CRF, against {crf.THEIRS}", *cells(numbers["crf"], crf.THEIRS))
    console.print(table)
    if numbers["crf"]["no_alternative"]:
        console.print(f"CRF against nothing: {numbers['crf']['no_alternative']}")
    table = Table("proposals", "seconds", "ms a proposal", "peak memory")
    for count, cost in numbers["costs"].items():
        memory = f"{cost['peak_bytes'] / 1e9:.2f} GB" if cost["peak_bytes"] else "not told"
        table.add_row(count, f"{cost['seconds']:.2f}", f"{1000 * cost['seconds_per_proposal']:.0f}", memory)
    console.print(table)


def cells(result: dict[str, Any], other: str) -> list[str]:
    """Seconds of ours and of the other side, and the ratio, as text."""
    texts = [spread(result["seconds"][name]) if name in result["seconds"] else "-" for name in (OURS, other)]
    return [*texts, spread(result["ratio"]) if result["ratio"] else "-"]
