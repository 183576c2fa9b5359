"""Trains the small edge network (`models.EdgeNetwork`) on BSDS500: photographs with boundaries that people drew.

BSDS500 (Arbelaez et al., 2011) is read in two layouts:
  ROOT/{images,groundTruth}/{train,val,test}/NAME.{jpg,mat}      the official one (BSR/BSDS500/data)
  ROOT/{train,val,test}/NAME.jpg and NAME_boundaries.png         255 x the share of people who drew a boundary there
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import chex
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax

from deconvnet_jax.errors import InputError
from deconvnet_jax.images import read_image, read_mask
from deconvnet_jax.mat_files import read_mat
from deconvnet_jax.models import EdgeNetwork, Layers, compiler_options

CROP = 256
SCALES = (0.6, 1.5)
WEIGHT_DECAY = 1e-4
_AHEAD = 2  # Batches prepared in advance.


class BoundaryExample(NamedTuple):
    """A photograph and its boundaries.

    Attributes:
      name: name of the file without suffix.
      image: uint8 RGB [H, W, 3].
      share: float32 [H, W], 0..1: the share of the photograph's annotators who drew a boundary at each pixel.
    """

    name: str
    image: np.ndarray
    share: np.ndarray


def read_bsds500(root: str | Path, split: str) -> list[BoundaryExample]:
    """Returns all photographs of a split with their boundaries, in the order of their names.

    Args:
      root: folder in one of the two layouts above.
      split: "train", "val" or "test".

    Returns:
      One example per photograph, all in memory.

    Raises:
      InputError: if the folder has neither layout, a file is missing or damaged, or sizes differ.
    """
    root = Path(root).expanduser()
    official = (root / "images" / split).is_dir()
    folder = root / "images" / split if official else root / split
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise InputError(
            f"{root} has no photographs of the split '{split}'; pass the folder BSR/BSDS500/data of the BSDS500 "
            "download, or one with train/NAME.jpg and train/NAME_boundaries.png"
        )
    examples = []
    for path in images:
        truth = (
            root / "groundTruth" / split / f"{path.stem}.mat" if official else folder / f"{path.stem}_boundaries.png"
        )
        image = read_image(path)
        share = _annotators_share(truth) if official else read_mask(_existing(truth)).astype(np.float32) / 255
        if share.shape != image.shape[:2]:
            raise InputError(
                f"{truth} is {share.shape[1]}x{share.shape[0]} pixels, but {path.name} is {image.shape[1]}x"
                f"{image.shape[0]}; expected equal sizes"
            )
        examples.append(BoundaryExample(path.stem, image, share))
    return examples


def _annotators_share(path: Path) -> np.ndarray:
    """Reads an official ground-truth file: a cell array with one struct per annotator and the field Boundaries."""
    try:
        people = read_mat(_existing(path), "groundTruth", "download it again").ravel()
        drawn = np.stack([person["Boundaries"][0, 0] for person in people]) > 0
        if drawn.ndim != 3:
            raise ValueError("expected one boundary map per annotator")
        return drawn.mean(axis=0, dtype=np.float32)
    except InputError:
        raise
    except Exception as error:  # SciPy raises many kinds of exceptions for damaged files.
        raise InputError(f"{path} is no ground truth of BSDS500 ({type(error).__name__}); download it again") from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise InputError(f"no file {path} with the boundaries of the photograph of that name; add it")
    return path


def train_edge_network(
    examples: Sequence[BoundaryExample],
    *,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> Layers:
    """Trains an edge network from random weights and returns its parameters.

    The target is the share of people who drew a boundary within a pixel, and the loss is the cross-entropy, so the
    network learns a probability. The optimizer is AdamW. The learning rate warms up over a twentieth of the steps and
    then falls along a cosine.

    Args:
      examples: photographs with boundaries.
      steps: number of updates.
      batch_size: number of 256x256 crops per step.
      learning_rate: largest learning rate.
      seed: determines initial weights, crops and augmentation.
      progress: called after every step with the number of steps done, the number of all steps, and the loss.

    Returns:
      The parameters on the host, float32.
    """
    net = EdgeNetwork()
    params = jax.jit(net.init)(jax.random.key(seed), np.zeros((1, CROP, CROP, 3), np.uint8))["params"]
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, max(1, steps // 20), steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=WEIGHT_DECAY))

    def step(params: Layers, state: Any, images: jax.Array, targets: jax.Array) -> tuple:
        loss, gradients = jax.value_and_grad(edge_loss)(params, net, images, targets)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    step = jax.jit(step, donate_argnums=(0, 1), compiler_options=compiler_options(jax.default_backend()))
    state = optimizer.init(params)
    for done, (images, targets) in enumerate(augmented_batches(examples, steps, batch_size, seed), 1):
        params, state, loss = step(params, state, images, targets)
        progress(done, steps, float(loss))
    return jax.device_get(params)


def edge_loss(params: Layers, net: EdgeNetwork, images: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy over all pixels that count.

    Args:
      params: parameters of the network.
      net: the network.
      images: uint8 RGB [N, H, W, 3], H and W multiples of 16.
      targets: float32 [N, H, W], probabilities 0..1; negative where a pixel does not count.

    Returns:
      A float32 scalar; 0 if no pixel counts.
    """
    logits = net.apply({"params": params}, images)
    chex.assert_equal_shape((logits, targets))
    losses = optax.sigmoid_binary_cross_entropy(logits, jnp.maximum(targets, 0))
    counted = targets >= 0
    return jnp.sum(jnp.where(counted, losses, 0)) / jnp.maximum(jnp.sum(counted), 1)


def near_share(share: np.ndarray) -> np.ndarray:
    """Returns the share of people who drew a boundary within about a pixel.

    People agree on a boundary but not on its exact pixels. A line covers three pixels of a 3x3 window, so the sum over
    the window is divided by three.

    Args:
      share: float [H, W], 0..1: the share of people who drew a boundary at each pixel.

    Returns:
      float32 [H, W], 0..1.
    """
    return np.minimum(cv2.boxFilter(np.asarray(share, np.float32), -1, (3, 3), normalize=False) / 3, 1)


def augmented_batches(
    examples: Sequence[BoundaryExample], count: int, batch_size: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of randomly augmented crops, which a thread prepares in advance.

    Args:
      examples: photographs with boundaries.
      count: number of batches.
      batch_size: crops per batch, B.
      seed: determines all crops and augmentation.

    Yields:
      images uint8 [B, 256, 256, 3], and targets float32 [B, 256, 256] in 0..1, negative beyond the photograph.
    """
    targets = [near_share(example.share) for example in examples]

    def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, number])
        chosen = rng.integers(len(examples), size=batch_size)
        crops = [_augmented(examples[i].image, targets[i], rng) for i in chosen]
        return np.stack([image for image, _ in crops]), np.stack([target for _, target in crops])

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(batch, number) for number in range(min(_AHEAD, count))]
        for number in range(count):
            if number + _AHEAD < count:
                waiting.append(pool.submit(batch, number + _AHEAD))
            yield waiting.pop(0).result()


def _augmented(image: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns a random crop: scaled, turned by a multiple of 90 degrees, mirrored or not, with changed colours."""
    scale = np.exp(rng.uniform(*np.log(SCALES)))
    height, width = image.shape[:2]
    x, y = (rng.uniform(min(0, length - CROP / scale), max(0, length - CROP / scale)) for length in (width, height))
    inverse = np.array([[1 / scale, 0, x], [0, 1 / scale, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(image, inverse, (CROP, CROP), flags=flags, borderMode=cv2.BORDER_REFLECT)
    target = cv2.warpAffine(target, inverse, (CROP, CROP), flags=flags, borderValue=-1)
    turns, mirror = int(rng.integers(4)), rng.random() < 0.5
    image, target = np.rot90(image, turns), np.rot90(target, turns)
    if mirror:
        image, target = image[:, ::-1], target[:, ::-1]
    gain, offset = rng.uniform(0.7, 1.3, 3) * rng.uniform(0.8, 1.2), rng.uniform(-25, 25)
    return np.clip(image * gain + offset, 0, 255).astype(np.uint8), np.ascontiguousarray(target)
