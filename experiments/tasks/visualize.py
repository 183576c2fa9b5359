"""Draws figures 4, 6 and 7 of the paper for any photograph and checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import ml_collections
import numpy as np

from deconvnet_jax.data import enlarge, propose_boxes, square
from deconvnet_jax.errors import InputError, counted
from deconvnet_jax.images import MAX_PHOTOGRAPH, read_photograph, save_picture
from deconvnet_jax.inference import Result, Segmenter, crop_windows, decoder_activations, device_image
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.ops import MEAN_BGR, checked_boxes
from deconvnet_jax.visualization import (
    activation_picture,
    class_legend,
    overlay,
    representative_channel,
    side_by_side,
)
from deconvnet_jax.weights import load_checkpoint

from ..common import segmenting
from ..common.output import output_folder
from ..common.photographs import Failures, find_images, result_names

SIDE = 224  # pixels, side of each picture of activations
SHOWN_SIDE = 480  # pixels, largest side of photographs in figures
COUNTS = (1, 2, 5, 10, 20, 50)  # numbers of proposals in figure 6
BOX_COLOR = (255, 255, 0)


def run(
    checkpoint: str | Path,
    output: str | Path,
    arguments: Sequence[str],
    *,
    step: int | None = None,
    averages: bool = True,
    box: Sequence[str] | None = None,
    config: ml_collections.ConfigDict | None = None,
    changes: dict[str, Any] | None = None,
    max_pixels: int = MAX_PHOTOGRAPH,
    palette: str = "voc",
) -> int:
    """Draws the figures of images. Prints one line per image; failures go to stderr and are repeated last.

    Args:
      checkpoint: Folder of a training run, of its checkpoints or of imported weights; it must hold a DeconvNet.
      output: Folder for the figures; it may be in a bucket.
      arguments: Image files and folders of them.
      step: Step of the checkpoint; None: the step with the best evaluation.
      averages: Whether to use the averaged weights, if the run has kept them (`config.ema_decay`).
      box: X0, Y0, X1 and Y1 in pixels: the object whose activations are shown; None: the largest object found.
      config: Config whose section `inference` says how to segment; None: the config in the checkpoint.
      changes: Settings to change, such as {"inference.crf": "released"}.
      max_pixels: Photographs with more pixels are refused.
      palette: Colours of the classes in the figures, "voc" or "colour_blind".

    Returns:
      The number of images that failed.

    Raises:
      InputError: if an image does not exist or would be overwritten, or if checkpoint, settings, box or output folder
        cannot be used.
    """
    paths = find_images(arguments)
    folder = output_folder(output)
    chosen = parse_box(box)
    segmenter = segmenting.segmenter_of(load_checkpoint(checkpoint, step, averages), config, changes or {})
    if not isinstance(segmenter.net, DeconvNet):
        raise InputError(
            f"{checkpoint} is no DeconvNet, and the figures show its decoder; give another network as "
            "--config.inference.ensemble_checkpoint beside a DeconvNet"
        )
    if segmenter.settings.proposals_path is not None:
        raise InputError("the figures find their proposals themselves: give inference.proposals a method, not a file")
    failures = Failures(len(paths))
    for path, name in zip(paths, result_names(paths, folder), strict=True):
        if failures.attempt(path, _draw, segmenter, path, folder / name, max_pixels, chosen, palette):
            print(f"{path} -> {folder / name}_{{activations,proposals,comparison}}.png", flush=True)
    return failures.listed()


def _draw(
    segmenter: Segmenter, path: Path, beginning: Path, max_pixels: int, box: np.ndarray | None, palette: str
) -> bool:
    for kind, figure in draw_figures(segmenter, read_photograph(path, max_pixels), box, palette).items():
        save_picture(beginning.with_name(f"{beginning.name}_{kind}.png"), figure)
    return True


def parse_box(words: Sequence[str] | None) -> np.ndarray | None:
    """Returns the box that --box names, float64 [4]; None if it is not given.

    Args:
      words: The parts of the flag's value.

    Raises:
      InputError: unless these are four numbers with X0 < X1 and Y0 < Y1.
    """
    if words is None:
        return None
    try:
        return checked_boxes([[float(word) for word in words]])[0]
    except (ValueError, InputError) as error:
        raise InputError(f"--box={','.join(words)}: expected X0,Y0,X1,Y1 in pixels with X0 < X1 and Y0 < Y1") from error


def draw_figures(
    segmenter: Segmenter, image: np.ndarray, box: np.ndarray | None = None, palette: str = "voc"
) -> dict[str, np.ndarray]:
    """Draws the three figures of one photograph.

    Args:
      segmenter: Segmenter of a DeconvNet.
      image: uint8 RGB [H, W, 3].
      box: Box [4] of the object whose activations are shown, in pixels; None: the largest object found.
      palette: Colours of the classes, "voc" or "colour_blind".

    Returns:
      "activations", "proposals" and "comparison", each a picture, uint8 RGB [h, w, 3].

    Raises:
      InputError: if the box is outside the image.
    """
    plain = segmenter.alone().changed(crf="none")
    result = plain(image)
    return {
        "activations": activations_figure(plain, image, result, box),
        "proposals": proposals_figure(plain, image, palette),
        "comparison": comparison_figure(segmenter, image, result, palette),
    }


def activations_figure(
    segmenter: Segmenter, image: np.ndarray, result: Result, box: np.ndarray | None = None
) -> np.ndarray:
    """Draws figure 4 in rows of six: the window, the activations of the decoder, and the score map of the class.

    Args:
      segmenter: Segmenter of a DeconvNet.
      image: uint8 RGB [H, W, 3].
      result: Result of the image, in which the largest object is found.
      box: Box [4] of the object, in pixels; None: the largest object.

    Returns:
      The figure, uint8 RGB [h, w, 3].

    Raises:
      InputError: if the box is outside the image.
    """
    height, width = image.shape[:2]
    box = largest_object(result.labels) if box is None else box
    if (np.minimum(box[2:], (width, height)) <= np.maximum(box[:2], 0)).any():
        raise InputError(f"the box {box.tolist()} is not on the image, which is {width}x{height} pixels; give another")
    assert isinstance(segmenter.net, DeconvNet)  # `run` refuses other networks.
    window = square(enlarge(box[None])).astype(np.float32)
    crop = crop_windows(*device_image(image), window, segmenter.input_size)
    maps = {
        name: np.asarray(found[0])
        for name, found in decoder_activations(segmenter.net, segmenter.variables, crop).items()
    }
    scores = maps.pop("scores")
    probabilities = np.asarray(jax.nn.softmax(scores))
    class_id = 1 + int(probabilities[..., 1:].mean((0, 1)).argmax())
    pixels = np.clip(np.asarray(crop[0] + np.array(MEAN_BGR, np.float32)).round(), 0, 255)[..., ::-1].astype(np.uint8)
    pictures = [cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)]
    titles, channel = ["window"], 0
    for name, activations in maps.items():
        if not name.startswith("unpool"):  # An unpooled map shows the channel that was unpooled.
            channel = representative_channel(activations, probabilities[..., class_id])
        pictures.append(activation_picture(activations[..., channel], SIDE))
        titles.append(f"{name} {activations.shape[0]}x{activations.shape[1]}")
    pictures.append(activation_picture(probabilities[..., class_id], SIDE))
    titles.append(segmenter.class_names[class_id])
    return _rows(pictures, titles, 6)


def largest_object(labels: np.ndarray) -> np.ndarray:
    """Returns the box of the largest connected region of a class other than background.

    Args:
      labels: Class ids, int [H, W].

    Returns:
      Box, float64 [4], as x0, y0, x1, y1 in pixels; the whole image if all of it is background.
    """
    best, found = 0, np.array([0, 0, labels.shape[1], labels.shape[0]], np.float64)
    for class_id in np.unique(labels[labels > 0]):
        _, _, stats, _ = cv2.connectedComponentsWithStats((labels == class_id).astype(np.uint8))
        for x, y, width, height, area in stats[1:].tolist():
            if area > best:
                best, found = area, np.array([x, y, x + width, y + height], np.float64)
    return found


def proposals_figure(segmenter: Segmenter, image: np.ndarray, palette: str = "voc") -> np.ndarray:
    """Draws figure 6: results of the largest 1, 2, 5, ... proposals, with the windows that each step adds.

    Args:
      segmenter: Segmenter whose settings say how proposals are found, and how many.
      image: uint8 RGB [H, W, 3].
      palette: Colours of the classes, "voc" or "colour_blind".

    Returns:
      The figure, uint8 RGB [h, w, 3].
    """
    settings = segmenter.settings
    segmenter = segmenter.changed(mode="paper", scales=(1.0,))
    boxes = propose_boxes(image, settings.num_proposals, method=settings.proposals)[0]
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    boxes = boxes[np.argsort(-areas, kind="stable")]
    counts = sorted({min(count, len(boxes)) for count in (*COUNTS, settings.num_proposals)})
    pictures, titles, before = [_shown(image)], ["photograph"], 0
    for count in counts:
        result = segmenter.changed(num_proposals=count)(image, boxes)
        picture = _shown(overlay(image, result.labels, palette=palette))
        scale = picture.shape[1] / image.shape[1]
        for x0, y0, x1, y1 in (result.boxes[before:] * scale).round().astype(int).tolist():
            cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), BOX_COLOR, 1)
        pictures.append(picture)
        titles.append(counted(count, "proposal"))
        before = count
    return _rows(pictures, titles, 4)


def comparison_figure(segmenter: Segmenter, image: np.ndarray, result: Result, palette: str = "voc") -> np.ndarray:
    """Draws figure 7: the photograph, DeconvNet and the result with CRF; also a second network and the ensemble.

    Args:
      segmenter: Segmenter with all settings. If it has no CRF, the one called "released" is used.
      image: uint8 RGB [H, W, 3].
      result: Result of DeconvNet alone, without CRF.
      palette: Colours of the classes, "voc" or "colour_blind".

    Returns:
      The figure, uint8 RGB [h, w, 3].
    """
    crf = segmenter.settings.crf if segmenter.settings.crf != "none" else "released"
    labels = {"DeconvNet": result.labels}
    if segmenter.partner:
        partner = segmenter.alone(segmenter.partner).changed(crf="none")
        name = type(partner.net).__name__
        labels = {name if name not in labels else "second network": partner(image).labels, **labels}
        labels["ensemble"] = segmenter.changed(crf="none")(image).labels
    labels[f"with {crf} CRF"] = segmenter.changed(crf=crf)(image).labels
    pictures = [_shown(image), *(_shown(overlay(image, found, palette=palette)) for found in labels.values())]
    ids = np.unique(np.concatenate([np.unique(found) for found in labels.values()]))
    height = max(160, pictures[0].shape[0])
    key = class_legend(ids.tolist(), segmenter.class_names, height, palette=palette, over_photograph=True)
    return side_by_side([*pictures, key], ["photograph", *labels, ""])


def _shown(picture: np.ndarray) -> np.ndarray:
    scale = min(1.0, SHOWN_SIDE / max(picture.shape[:2]))
    size = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture


def _rows(pictures: Sequence[np.ndarray], titles: Sequence[str], columns: int) -> np.ndarray:
    starts = range(0, len(pictures), columns)
    rows = [side_by_side(pictures[i : i + columns], titles[i : i + columns]) for i in starts]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded)
