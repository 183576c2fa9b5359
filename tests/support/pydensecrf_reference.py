"""Computes reference results with pydensecrf2, the Python wrapper of Krähenbühl and Koltun's densecrf.

    pip install pydensecrf2==1.1        # compiles for half a minute and needs a C++ compiler
    python tests/support/pydensecrf_reference.py

rewrites dense_crf_reference.npz beside this file: pictures, unaries and the probabilities after ten iterations.
"""

from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("dense_crf_reference.npz")
# {name of the case: keywords of `dense_crf`}. "odd" has a number of pixels that is no multiple of four.
CASES: dict[str, dict[str, Any]] = {
    "released": {"gaussian": (3.0, 3.0), "bilateral": (20.0, 3.0, 5.0), "normalization": "none"},
    "usual": {"gaussian": (3.0, 3.0), "bilateral": (80.0, 13.0, 10.0), "normalization": "symmetric"},
    "odd": {"gaussian": (2.0, 1.5), "bilateral": (9.0, 20.0, 2.0), "normalization": "none"},
}
CROPS = {"released": (48, 64), "usual": (48, 64), "odd": (61, 47)}
CLASSES = {"released": 4, "usual": 4, "odd": 2}
STEPS = {"released": 2.0, "usual": 1 / 16, "odd": 1 / 8}  # factors by which the stored uint8 unaries are multiplied


def pydensecrf(
    unary: np.ndarray,
    image: np.ndarray,
    gaussian: tuple[float, float],
    bilateral: tuple[float, float, float],
    normalization: str,
    iterations: int = 10,
) -> np.ndarray:
    """Returns the probabilities of pydensecrf2, float32 [H, W, K]; a kernel with weight 0 is left out."""
    import pydensecrf.densecrf as dcrf

    height, width, classes = unary.shape
    rule = {"none": dcrf.NO_NORMALIZATION, "symmetric": dcrf.NORMALIZE_SYMMETRIC}[normalization]
    crf = dcrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(-1, classes).T, np.float32))
    if gaussian[1]:
        crf.addPairwiseGaussian(gaussian[0], gaussian[1], kernel=dcrf.DIAG_KERNEL, normalization=rule)
    if bilateral[2]:
        colors = np.ascontiguousarray(image)
        crf.addPairwiseBilateral(*bilateral[:2], colors, bilateral[2], kernel=dcrf.DIAG_KERNEL, normalization=rule)
    return np.array(crf.inference(iterations)).T.reshape(unary.shape)


def load(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the unary, float32 [H, W, K], the image, uint8 [H, W, 3], and pydensecrf2's result, float32 [H, W, K]."""
    with np.load(FILE) as file:
        image, unary, expected = (file[f"{case}/{name}"] for name in ("image", "unary", "probabilities"))
    return unary * np.float32(STEPS[case]), image, expected


def noisy_unary(rng: np.random.Generator, label: np.ndarray, classes: int) -> np.ndarray:
    """Returns a unary of smooth noise that slightly favours the true class, uint8 [H, W, K]."""
    import cv2

    noise = [cv2.GaussianBlur(rng.standard_normal(label.shape), (0, 0), 3) for _ in range(classes)]
    logits = 500 * np.stack(noise, axis=-1) + 80 * (label[..., None] == np.arange(classes))
    return np.clip(np.round(logits.max(-1, keepdims=True) - logits), 0, 255).astype(np.uint8)


def main() -> None:
    """Draws the pictures and writes the file."""
    from deconvnet_jax.data.scenes import draw_scene

    arrays = {}
    for i, (case, keywords) in enumerate(CASES.items()):
        rng = np.random.default_rng(i)
        height, width = CROPS[case]
        image, label, _ = draw_scene(rng)
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        image, label = (array[top : top + height, left : left + width] for array in (image, label))
        unary = noisy_unary(rng, np.minimum(label, CLASSES[case] - 1), CLASSES[case])
        expected = pydensecrf(unary * np.float32(STEPS[case]), image, **keywords)
        arrays |= {f"{case}/image": image, f"{case}/unary": unary, f"{case}/probabilities": expected}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
