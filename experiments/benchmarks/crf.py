"""Seconds of the dense CRF per image: this project, and pydensecrf2 on the same machine.

    python -m experiments.benchmark crf [--voc_root=FOLDER] [--json=FILE]

From uint8 images of about 500x375 pixels and scores of 21 classes to labels, with 10 iterations, lattices included;
without `--voc_root`, whose first photographs are taken, the images are drawn. The parameters are those of the released
CRF and the usual ones (`ops.CRF_PRESETS`). Rounds alternate between the two, an image each, because a machine's speed
drifts; the ratio is that of each round. pydensecrf2 runs on one thread of the host, ours on the device that JAX uses.
Compilation is not counted: it is once for images of about one size. Without pydensecrf2 there is no ratio.
"""

import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np

from deconvnet_jax.data.scenes import draw_scene
from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_image
from deconvnet_jax.ops import CRF_PRESETS
from deconvnet_jax.ops.dense_crf import crf_kernels, mean_field

from . import harness
from .harness import OURS, Numbers, Table

HEIGHT, WIDTH, CLASSES, ITERATIONS = 375, 500, 21, 10
PHOTOGRAPHS = 3  # that take turns
ROUNDS = 6
AGREEMENT = 99.0  # percent of the labels, at least
SCALE = 12.0  # of the scores: products of two networks' are that large, and what the released CRF is made for
THEIRS = "pydensecrf2"

Preset = Mapping[str, Any]  # keyword arguments of `dense_crf`


class Run(NamedTuple):
    """Labels uint8 [H, W]; seconds of making the lattices and of iterating; vertices of both lattices, if told."""

    labels: np.ndarray
    build: float
    iterate: float
    vertices: tuple[int, ...] = ()


Contender = Callable[[np.ndarray, np.ndarray, Preset], Run]  # of scores, image and preset


def run(voc_root: Path | None) -> Numbers:
    """Measures both presets.

    Raises:
      InputError: if there are no photographs in the folder.
    """
    images = read_photographs(voc_root) if voc_root else [draw_image(seed) for seed in range(PHOTOGRAPHS)]
    cases = [(draw_scores(image.shape[0], image.shape[1], seed), image) for seed, image in enumerate(images)]
    contenders, reason = find_contenders()
    return {
        "device": jax.devices()[0].device_kind,
        "cores": harness.cores(),
        "images": [list(image.shape[:2]) for image in images],
        "classes": CLASSES,
        "iterations": ITERATIONS,
        "alternative": THEIRS if THEIRS in contenders else None,
        "no_alternative": reason,
        "results": {name: measure(contenders, cases, preset, ROUNDS) for name, preset in CRF_PRESETS.items()},
    }


def measure_one(scores: np.ndarray, image: np.ndarray, rounds: int) -> Numbers:
    """Returns `measure` of one image with the released parameters, and "no_alternative"."""
    contenders, reason = find_contenders()
    return {**measure(contenders, [(scores, image)], CRF_PRESETS["released"], rounds), "no_alternative": reason}


def read_photographs(voc_root: Path) -> list[np.ndarray]:
    """Returns the first photographs of a folder in the VOC layout."""
    files = sorted(voc_root.glob("JPEGImages/*.jpg"))[:PHOTOGRAPHS]
    if not files:
        raise InputError(f"--voc_root={voc_root}: there are no photographs JPEGImages/*.jpg")
    return [read_image(file) for file in files]


def draw_image(seed: int) -> np.ndarray:
    """Returns four scenes of the embedded data set side by side, cut to uint8 [375, 500, 3]."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng)[0][:240, :256] for _ in range(4)]
    tiles = [np.pad(scene, [(0, 240 - len(scene)), (0, 256 - scene.shape[1]), (0, 0)], "reflect") for scene in scenes]
    return np.block([[[tiles[0]], [tiles[1]]], [[tiles[2]], [tiles[3]]]])[:HEIGHT, :WIDTH]


def draw_scores(height: int, width: int, seed: int) -> np.ndarray:
    """Returns smooth noise, float32 [height, width, 21]."""
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 12) for _ in range(CLASSES)]
    return (SCALE * np.stack(noise, axis=-1) / np.std(noise)).astype(np.float32)


def find_contenders() -> tuple[dict[str, Contender], str | None]:
    """Returns what there is to compare, and why not pydensecrf2 if it is missing."""
    try:
        dcrf = importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return {OURS: ours}, "pydensecrf2 is not installed: pip install pydensecrf2 (builds with a C++ compiler)"
    return {OURS: ours, THEIRS: partial(theirs, dcrf)}, None


def ours(scores: np.ndarray, image: np.ndarray, preset: Preset) -> Run:
    """Does what `dense_crf` does, in its two parts."""
    begin = time.perf_counter()
    kernels = jax.block_until_ready(crf_kernels(image, preset["gaussian"], preset["bilateral"]))
    built = time.perf_counter()
    weights = preset["gaussian"][1], preset["bilateral"][2]
    q = mean_field(unary_of(scores), kernels, weights, ITERATIONS, preset["normalization"])
    labels = np.asarray(q).argmax(axis=-1).astype(np.uint8)
    end = time.perf_counter()
    vertices = tuple(1 + int(kernel.vertices[:, : image.shape[0] * image.shape[1]].max()) for kernel in kernels)
    return Run(labels, built - begin, end - built, vertices)


def theirs(dcrf: ModuleType, scores: np.ndarray, image: np.ndarray, preset: Preset) -> Run:
    """Does the same with pydensecrf2."""
    height, width, classes = scores.shape
    rule = {"none": dcrf.NO_NORMALIZATION, "symmetric": dcrf.NORMALIZE_SYMMETRIC}[preset["normalization"]]
    options = {"kernel": dcrf.DIAG_KERNEL, "normalization": rule}
    place, color, weight = preset["bilateral"]
    begin = time.perf_counter()
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.addPairwiseGaussian(*preset["gaussian"], **options)
    crf.addPairwiseBilateral(place, color, np.ascontiguousarray(image), weight, **options)
    built = time.perf_counter()
    crf.setUnaryEnergy(np.ascontiguousarray(unary_of(scores).reshape(-1, classes).T))
    q = np.array(crf.inference(ITERATIONS))
    labels = q.argmax(axis=0).reshape(height, width).astype(np.uint8)
    return Run(labels, built - begin, time.perf_counter() - built)


def unary_of(scores: np.ndarray) -> np.ndarray:
    """Returns -log softmax."""
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1, keepdims=True)) - shifted


def measure(
    contenders: Mapping[str, Contender],
    cases: Sequence[tuple[np.ndarray, np.ndarray]],
    preset: Preset,
    rounds: int,
) -> Numbers:
    """Measures contenders on pairs of scores and image; "agreement" is of their labels, in percent.

    Raises:
      RuntimeError: if the labels differ: then it is not the same computation.
    """
    for case in cases:  # compilation
        contenders[OURS](*case, preset)

    def turn(contender: Contender) -> Callable[[], Run]:
        endless = itertools.cycle(cases)
        return lambda: contender(*next(endless), preset)

    runs = harness.in_turns({name: turn(contender) for name, contender in contenders.items()}, rounds)
    totals = {name: [one.build + one.iterate for one in of_name] for name, of_name in runs.items()}
    agreement = None
    if THEIRS in runs:
        pairs = zip(runs[OURS], runs[THEIRS], strict=True)
        agreement = 100 * statistics.mean(float(np.mean(mine.labels == other.labels)) for mine, other in pairs)
        if agreement < AGREEMENT:
            raise RuntimeError(f"the two CRFs do not compute the same: {agreement:.3f} % of the labels are equal")
    return {
        "seconds": {name: harness.spread(of_name) for name, of_name in totals.items()},
        "build_seconds": {name: harness.spread([one.build for one in of_name]) for name, of_name in runs.items()},
        "iterations_seconds": {
            name: harness.spread([one.iterate for one in of_name]) for name, of_name in runs.items()
        },
        "ratio": harness.times_as_fast(totals, THEIRS),
        "agreement": agreement,
        "vertices": [list(one.vertices) for one in runs[OURS][: len(cases)]],
    }


def tables(numbers: Numbers) -> list[Table]:
    """Returns a row for each side and preset."""
    rows = []
    for preset, result in numbers["results"].items():
        near, alike = zip(*result["vertices"], strict=True)
        equal = "-" if result["agreement"] is None else f"{result['agreement']:.4f} %"
        of_ours = [harness.text(result["ratio"]), equal, f"{max(near):,}; {min(alike):,} to {max(alike):,}"]
        for name in result["seconds"]:
            times = (harness.text(result[key][name]) for key in ("seconds", "build_seconds", "iterations_seconds"))
            rows.append([f"{name}, {preset}", *times, *(of_ours if name == OURS else ["1", "", ""])])
    columns = ("", "seconds", "build", "iterations", "ratio", "equal labels", "vertices (2-D; 5-D)")
    title = f"Dense CRF, {numbers['iterations']} iterations, {numbers['classes']} classes"
    return [Table(harness.title(title, numbers), columns, rows)]
