"""Computes scores from proposals in NumPy, one window at a time, as a reference for the jitted batch."""

import numpy as np

MEAN_BGR = np.array([104.00698793, 116.66876762, 122.67891434])


def bilinear(array, axis, positions):
    """Returns the values at fractional positions along an axis; positions outside get the outermost value."""
    last = array.shape[axis] - 1
    positions = np.clip(positions, 0, last)
    low = np.floor(positions).astype(int)
    share = (positions - low).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return np.take(array, low, axis) * (1 - share) + np.take(array, np.minimum(low + 1, last), axis) * share


def crop(image, box, size):
    """Returns a box of an image, uint8 RGB, resized to [size, size, 3], BGR minus mean; black outside the image."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    ys, xs = (start + (np.arange(size) + 0.5) * (stop - start) / size for start, stop in ((y0, y1), (x0, x1)))
    found = bilinear(bilinear(image.astype(np.float64), 0, ys - 0.5), 1, xs - 0.5)
    found[(ys < 0) | (ys >= image.shape[0])] = 0
    found[:, (xs < 0) | (xs >= image.shape[1])] = 0
    return found[..., ::-1] - MEAN_BGR


def place(scores, box, height, width):
    """Returns the score map of a box at the pixels of the image, [H, W, K], and which pixels the box covers."""
    x0, y0, x1, y1 = np.asarray(box, np.float64)
    ys, xs = np.arange(height) + 0.5, np.arange(width) + 0.5
    found = bilinear(scores.astype(np.float64), 0, (ys - y0) * scores.shape[0] / (y1 - y0) - 0.5)
    found = bilinear(found, 1, (xs - x0) * scores.shape[1] / (x1 - x0) - 0.5)
    return found, ((ys >= y0) & (ys < y1))[:, None] & ((xs >= x0) & (xs < x1))


def aggregate(image, boxes, network, size, aggregation, flip=False):
    """Returns the scores of an image [H, W, K], 0 outside all boxes, and the number of boxes per pixel [H, W]."""
    height, width = image.shape[:2]
    total, count = None, np.zeros((height, width))
    for box in boxes:
        window = crop(image, box, size)
        scores = network(window)
        if flip:
            scores = (scores + network(window[:, ::-1])[:, ::-1]) / 2
        found, shown = place(scores, box, height, width)
        if total is None:
            total = np.full(found.shape, -np.inf if aggregation == "max" else 0.0)
        folded = np.maximum(total, found) if aggregation == "max" else total + found
        total = np.where(shown[..., None], folded, total)
        count += shown
    if aggregation == "mean":
        total = total / np.maximum(count, 1)[..., None]
    return np.where((count > 0)[..., None], total, 0), count


def imresize(array, size):
    """Returns MATLAB's imresize(array, size, 'bilinear'): its triangle widens when it shrinks; borders are mirrored."""
    for axis, length in enumerate(size):
        count = array.shape[axis]
        scale = length / count
        width = 2.0 if scale >= 1 else 2.0 / scale
        centre = (np.arange(length) + 1) / scale + 0.5 * (1 - 1 / scale)  # MATLAB counts from 1.
        left = np.floor(centre - width / 2)
        index = left[:, None] + np.arange(int(np.ceil(width)) + 2)
        distance = (centre[:, None] - index) * min(scale, 1)
        weight = np.maximum(1 - np.abs(distance), 0)
        weight /= weight.sum(axis=1, keepdims=True)
        mirrored = np.concatenate([np.arange(count), np.arange(count)[::-1]])
        picked = np.take(array, mirrored[(index.astype(int) - 1) % (2 * count)], axis=axis)
        shape = [1] * picked.ndim
        shape[axis], shape[axis + 1] = weight.shape
        array = (picked * weight.reshape(shape)).sum(axis=axis + 1)
    return array


def released(image, boxes, network, size, num_classes):
    """Returns the scores of the released loop (inference/generate_EDeconvNet_CRF_results.m).

    The boxes are in whole pixels of the image. The image lies in a black canvas with margins of its width above and
    below, and of its height left and right. Windows are cut from this canvas. Scores go into a canvas of zeros, from
    which the image's part is taken one pixel too early, like in the original.
    """
    height, width = image.shape[:2]
    canvas = np.zeros((height + 2 * width, width + 2 * height, 3))
    canvas[width : width + height, height : height + width] = image
    scores = np.zeros((*canvas.shape[:2], num_classes))
    for box in np.asarray(boxes, int) + np.array([height, width, height, width]):
        x0, y0, x1, y1 = box
        window = imresize(canvas[y0:y1, x0:x1], (size, size))[..., ::-1] - MEAN_BGR
        found = imresize(network(window), (y1 - y0, x1 - x0))
        scores[y0:y1, x0:x1] = np.maximum(scores[y0:y1, x0:x1], found)
    return scores[width - 1 : width - 1 + height, height - 1 : height - 1 + width]
