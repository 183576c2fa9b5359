"""Measures the dense CRF in seconds per image, and compares it with pydensecrf2 on the same machine.

    python -m experiments.benchmark crf [--voc_root=FOLDER] [--json=FILE]

Input: uint8 images of about 500x375 pixels and scores of 21 classes. Output: labels. The time includes the lattices and
10 iterations. With --voc_root the images are the folder's first photographs; without it they are drawn. Both presets of
parameters are measured, "released" and "usual" (`ops.CRF_PRESETS`).

Rounds alternate between the two sides, because the speed of a machine drifts; the ratio is that of each round.
pydensecrf2 runs on one thread of the host, this project on the device that JAX uses. Compilation is not counted: it
happens once for all images of about the same size. Without pydensecrf2 there is no ratio.
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
PHOTOGRAPHS = 3  # images, which take turns
ROUNDS = 6
AGREEMENT = 99.0  # smallest percentage of equal labels with which both sides compute the same
SCALE = 12.0  # standard deviation of the scores, as of an ensemble's products, for which the released CRF is made
THEIRS = "pydensecrf2"

Preset = Mapping[str, Any]  # keyword arguments of `dense_crf`


class Run(NamedTuple):
    """Result of one CRF.

    Attributes:
      labels: uint8 [H, W], class ids.
      build: seconds to build the lattices.
      iterate: seconds of the iterations.
      vertices: number of vertices of both lattices; empty for pydensecrf2, which does not report them.
    """

    labels: np.ndarray
    build: float
    iterate: float
    vertices: tuple[int, ...] = ()


Contender = Callable[[np.ndarray, np.ndarray, Preset], Run]  # takes scores, image and preset


def run(voc_root: Path | None) -> Numbers:
    """Measures both presets.

    Args:
      voc_root: folder in the VOC layout whose first photographs are used; None draws images.

    Returns:
      The numbers for `tables`, one JSON object.

    Raises:
      InputError: if the folder has no photographs.
      RuntimeError: if the two sides give different labels.
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
    """Measures the CRF with the released parameters on one image.

    Args:
      scores: float32 [H, W, K].
      image: uint8 RGB [H, W, 3].
      rounds: number of measurements.

    Returns:
      The result of `measure`, and "no_alternative": the reason why pydensecrf2 was not measured, or None.
    """
    contenders, reason = find_contenders()
    return {**measure(contenders, [(scores, image)], CRF_PRESETS["released"], rounds), "no_alternative": reason}


def read_photographs(voc_root: Path) -> list[np.ndarray]:
    """Returns the first photographs of a folder in the VOC layout, uint8 RGB [H, W, 3].

    Raises:
      InputError: if the folder has none.
    """
    files = sorted(voc_root.glob("JPEGImages/*.jpg"))[:PHOTOGRAPHS]
    if not files:
        raise InputError(f"--voc_root={voc_root}: no photographs JPEGImages/*.jpg; give a folder in the VOC layout")
    return [read_image(file) for file in files]


def draw_image(seed: int) -> np.ndarray:
    """Returns four scenes of the embedded data set in a 2x2 grid, cut to uint8 RGB [375, 500, 3]."""
    rng = np.random.default_rng(seed)
    scenes = [draw_scene(rng)[0][:240, :256] for _ in range(4)]
    tiles = [np.pad(scene, [(0, 240 - len(scene)), (0, 256 - scene.shape[1]), (0, 0)], "reflect") for scene in scenes]
    return np.block([[[tiles[0]], [tiles[1]]], [[tiles[2]], [tiles[3]]]])[:HEIGHT, :WIDTH]


def draw_scores(height: int, width: int, seed: int) -> np.ndarray:
    """Returns smooth random scores, float32 [height, width, 21].

    Args:
      height: of the image in pixels.
      width: of the image in pixels.
      seed: of the noise; the same seed gives the same scores.
    """
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 12) for _ in range(CLASSES)]
    return (SCALE * np.stack(noise, axis=-1) / np.std(noise)).astype(np.float32)


def find_contenders() -> tuple[dict[str, Contender], str | None]:
    """Returns the sides that can be measured, by name, and why pydensecrf2 is missing (None if it is not)."""
    try:
        dcrf = importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return {OURS: ours}, "pydensecrf2 is not installed: pip install pydensecrf2 (builds with a C++ compiler)"
    return {OURS: ours, THEIRS: partial(theirs, dcrf)}, None


def ours(scores: np.ndarray, image: np.ndarray, preset: Preset) -> Run:
    """Runs this project's CRF as `dense_crf` does, and measures both of its parts.

    Args:
      scores: float32 [H, W, K].
      image: uint8 RGB [H, W, 3].
      preset: keyword arguments of `dense_crf`.

    Returns:
      Labels, seconds and the lattices' vertices.
    """
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
    """Runs pydensecrf2's CRF and measures both of its parts.

    Args:
      dcrf: the module pydensecrf.densecrf.
      scores: float32 [H, W, K].
      image: uint8 RGB [H, W, 3].
      preset: keyword arguments of `dense_crf`, which are translated to pydensecrf2's.

    Returns:
      Labels and seconds.
    """
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
    """Computes unaries, -log softmax over the classes.

    Args:
      scores: float32 [H, W, K].

    Returns:
      float32 [H, W, K], from 0.
    """
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return np.log(np.exp(shifted).sum(axis=-1, keepdims=True)) - shifted


def measure(
    contenders: Mapping[str, Contender],
    cases: Sequence[tuple[np.ndarray, np.ndarray]],
    preset: Preset,
    rounds: int,
) -> Numbers:
    """Measures contenders in alternating rounds.

    Args:
      contenders: by name: OURS, and THEIRS if pydensecrf2 is installed.
      cases: pairs of scores float32 [H, W, K] and image uint8 RGB [H, W, 3], which take turns.
      preset: keyword arguments of `dense_crf`.
      rounds: number of rounds, at least 1.

    Returns:
      By name, the `spread` of "seconds", "build_seconds" and "iterations_seconds". "ratio" (`harness.times_as_fast`)
      and "agreement", the percentage of equal labels; both are None without THEIRS. "vertices" of the lattices.

    Raises:
      RuntimeError: if fewer than AGREEMENT percent of the labels are equal.
    """
    for case in cases:  # The first call compiles.
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
    """Returns one table with a row for each side and preset, from the numbers of `run`."""
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
