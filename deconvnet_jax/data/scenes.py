"""Draws the embedded data set: photograph-like scenes with objects of five classes, reproducible from a seed.

It serves machines without data: it is enough to train and evaluate a small network in minutes. Leaves, fish, kites,
tyres and flowers of 50 to 200 pixels lie rotated, shaded and partly hidden on a cluttered ground. Every class has its
own outline, surface and range of colours, as in nature. The ground and the clutter share the duller colours.

The data set is written in the VOC layout (`voc_layout`).
"""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import remove_unfinished, user_path, whole_folder
from deconvnet_jax.labels import label_image

SCENE_CLASSES = ("background", "leaf", "fish", "kite", "tyre", "flower")
VERSION = 3  # Version of the pictures. Increase it when the same seed gives other pictures.

_SIZES = ((320, 240), (320, 256), (288, 288), (256, 320), (300, 260), (260, 300))  # Width and height in pixels.
_MAX_COVERED = 0.4  # Largest share of an object's visible pixels that a later object may hide.
_SUPERSAMPLE = 4  # Outlines are drawn this many times as large, then averaged.

Progress = Callable[[int, int], None]


def write_scenes(
    root: str | Path, train: int = 500, val: int = 40, seed: int = 0, progress: Progress | None = None
) -> None:
    """Writes the data set to a folder, completely or not at all. Does nothing if the same data set is already there.

    Args:
      root: folder to create. It must be new, empty, or hold these scenes.
      train: number of scenes in the split "train", at least 1.
      val: number of scenes in "val", at least 1. The split "trainval" has the scenes of both.
      seed: seed, from 0. Scene i of a split depends only on the seed, the split and i.
      progress: function that is called with the number of scenes done and of all scenes.

    Raises:
      InputError: if the folder holds anything else or cannot be written, or if a number is out of range.

    Example:
      >>> from deconvnet_jax.data import split_names, write_scenes
      >>> write_scenes("my_scenes", train=2, val=1)
      >>> split_names("my_scenes", "val")
      ['val_0000']
    """
    root = user_path(root, "the folder of the scenes")
    parameters = {"version": VERSION, "train": train, "val": val, "seed": seed}
    if train < 1 or val < 1 or seed < 0:
        raise InputError(
            f"train={train}, val={val}, seed={seed}: expected at least 1 scene per split and a seed from 0"
        )
    remove_unfinished(root.parent)
    if _is_written(root, parameters):
        return
    try:
        with whole_folder(root) as unfinished:
            _write_all(unfinished, parameters, progress)
    except InputError:
        if not _is_written(root, parameters):  # Another process may have written the scenes first.
            raise


def draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws one scene.

    Args:
      rng: random generator, which decides everything about the scene.

    Returns:
      The image, uint8 RGB [H, W, 3]; the label, uint8 [H, W], with ids of SCENE_CLASSES; and the instances, uint8 [H,
      W], with 1, 2, ... for the objects and 0 for background. No pixel is 255.

    Example:
      >>> import numpy as np
      >>> from deconvnet_jax.data import draw_scene
      >>> image, label, instances = draw_scene(np.random.default_rng(0))
      >>> image.shape == (*label.shape, 3), bool((label > 0).any())
      (True, True)
    """
    width, height = _SIZES[rng.integers(len(_SIZES))]
    canvas = _background(rng, height, width)
    label, instances = np.zeros((2, height, width), np.uint8)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(rng.integers(2, 5)):
        _add_object(rng, canvas, label, instances, light)
    return _photograph(rng, canvas), label, instances


# Writing the folder.


def _is_written(root: Path, parameters: dict[str, int]) -> bool:
    """Returns whether a folder holds these scenes; raises InputError if it holds anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    marker = root / "scenes.json"
    if not marker.is_file():
        raise InputError(f"{root} holds other files; expected a new or empty folder for the scenes: choose another one")
    text = marker.read_text(encoding="utf-8", errors="replace")
    if " ".join(text.split()) != json.dumps(parameters):
        raise InputError(
            f"{root} holds scenes with {text[:200]!r}, expected {json.dumps(parameters)}; delete the folder or choose "
            "another one"
        )
    return True


def _write_all(root: Path, parameters: dict[str, int], progress: Progress | None) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names: dict[str, list[str]] = {}
    total = parameters["train"] + parameters["val"]
    for number, split in enumerate(("train", "val")):
        names[split] = [f"{split}_{i:04d}" for i in range(parameters[split])]
        for i, name in enumerate(names[split]):
            _write_scene(root, name, np.random.default_rng([parameters["seed"], number, i]))
            if progress:
                progress(number * parameters["train"] + i + 1, total)
    names["trainval"] = names["train"] + names["val"]
    for split, members in names.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(members) + "\n")
    (root / "classes.txt").write_text("\n".join(SCENE_CLASSES) + "\n")
    (root / "scenes.json").write_text(json.dumps(parameters))


def _write_scene(root: Path, name: str, rng: np.random.Generator) -> None:
    image, label, instances = draw_scene(rng)
    Image.fromarray(image).save(root / f"JPEGImages/{name}.jpg", quality=int(rng.integers(86, 95)))
    for folder, mask in (("SegmentationClass", label), ("SegmentationObject", instances)):
        label_image(mask).save(root / f"{folder}/{name}.png")


# The ground and the camera. Colours are float32 RGB from 0 to 1.


def _noise(rng: np.random.Generator, height: int, width: int, cell: float, channels: int = 1) -> np.ndarray:
    """Returns smooth noise with a deviation of about 1 and blobs of `cell` pixels, float32 [H, W, channels]."""
    shape = (int(height / cell) + 3, int(width / cell) + 3, channels)
    grid = rng.standard_normal(shape).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def _colour(
    rng: np.random.Generator,
    hues: tuple[float, float] = (0, 360),
    saturation: tuple[float, float] = (0.15, 0.8),
    brightness: tuple[float, float] = (0.3, 0.9),
) -> np.ndarray:
    """Returns a random colour with hue (degrees), saturation and brightness in these ranges, float32 RGB [3]."""
    hsv = np.array([rng.uniform(*hues) % 360, rng.uniform(*saturation), rng.uniform(*brightness)], np.float32)
    return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0]


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns two or three grounds with ragged borders and clutter on them, float32 [H, W, 3]."""
    canvas = np.broadcast_to(_ground(rng, height, width), (height, width, 3)).copy()
    for _ in range(rng.integers(1, 3)):
        border = _noise(rng, height, width, rng.uniform(60, 200)) + 0.15 * _noise(rng, height, width, 8)
        share = 1 / (1 + np.exp(-12 * (border - rng.uniform(0, 0.8))))
        canvas += share * (_ground(rng, height, width) - canvas)
    for _ in range(rng.integers(6, 22)):
        _add_clutter(rng, canvas)
    return canvas


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Returns a dull, textured ground, similar to sand, grass, gravel or cloth, float32 [H, W, 3]."""
    colour = _colour(rng, hues=(20, 75), saturation=(0.05, 0.4))
    stretch = rng.uniform(0.4, 2.5)
    texture = np.zeros((height, width), np.float32)
    for cell in (2, 5, 14, 50):
        amplitude = rng.uniform(0.01, 0.06)
        texture += amplitude * cv2.resize(_noise(rng, int(height * stretch), width, cell), (width, height))
    tint = 0.012 * _noise(rng, height, width, 40, 3)
    return (colour + texture[..., None] + tint).astype(np.float32)


def _add_clutter(rng: np.random.Generator, canvas: np.ndarray) -> None:
    """Draws a twig, a pebble or a scrap of paper in a dull colour on the ground, in place."""
    size = rng.uniform(6, 45)
    canvas, centre = _surroundings(canvas, rng.uniform((0, 0), canvas.shape[1::-1]), 2.3 * size + 8)
    height, width, _ = canvas.shape
    mask = np.zeros((height, width), np.uint8)
    _draw_clutter(rng, mask, centre, size)
    texture = 0.06 * _noise(rng, height, width, rng.uniform(2, 12))
    colour = _colour(rng, hues=(10, 110), saturation=(0.05, 0.4))
    alpha = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 2))[..., None] / np.float32(255)
    canvas += alpha * (colour + texture - canvas)


def _draw_clutter(rng: np.random.Generator, mask: np.ndarray, centre: np.ndarray, size: float) -> None:
    """Draws the outline of a twig (an open line), a pebble or a scrap of paper on a mask, in place."""
    turn, kind = rng.uniform(0, np.pi), rng.integers(3)
    if kind == 0:
        t = np.linspace(-1, 1, 12)
        line = centre + 2 * size * _turn(np.stack([t, rng.uniform(-0.5, 0.5) * t**2], -1), turn)
        cv2.polylines(mask, [(line * 16).astype(np.int32)], False, 255, int(rng.integers(1, 5)), cv2.LINE_AA, 4)
        return
    if kind == 1:
        angles, flatness = np.arange(40) * (2 * np.pi / 40), rng.uniform(0.4, 1)
    else:
        angles, flatness = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7))), 0.7
    outline = centre + size * _turn(np.stack([np.cos(angles), flatness * np.sin(angles)], -1), turn)
    cv2.fillPoly(mask, [(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)


def _surroundings(picture: np.ndarray, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of a picture around a point, as a view, and the position of the point in it.

    Drawing on the part costs less than drawing on the whole picture.
    """
    low = np.maximum(np.floor(centre - reach).astype(int), 0)
    high = np.ceil(centre + reach).astype(int)
    return picture[low[1] : high[1], low[0] : high[0]], centre - low


def _photograph(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Returns the scene as a camera shows it, with uneven light, slight blur and sensor noise, uint8 [H, W, 3]."""
    height, width, _ = canvas.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = rng.uniform(-0.18, 0.18, 2)
    light = 1 + slope[0] * x + slope[1] * y - rng.uniform(0, 0.2) * (x**2 + y**2)
    picture = canvas * (rng.uniform(0.85, 1.1) * light)[..., None] * rng.uniform(0.92, 1.08, 3)
    picture = cv2.GaussianBlur(np.clip(picture, 0, 1).astype(np.float32), (0, 0), rng.uniform(0.3, 0.9))
    grain = rng.standard_normal(picture.shape, np.float32) * rng.uniform(0.006, 0.022)
    return (np.clip(picture + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


# Objects. In an object's own coordinates, u points right, v points down, and the object fills the unit circle.


def _add_object(
    rng: np.random.Generator, canvas: np.ndarray, label: np.ndarray, instances: np.ndarray, light: float
) -> None:
    """Draws one object with its shadow, in place. Does nothing if it finds no room in 20 attempts."""
    class_id = int(rng.integers(1, len(SCENE_CLASSES)))
    outline, surface, look = _KINDS[class_id - 1]
    polygons = outline(rng)
    count = int(instances.max())
    for _ in range(20):
        radius = float(np.exp(rng.uniform(np.log(40), np.log(110))))
        place = rng.uniform(0.1, 0.9, 2) * label.shape[::-1]
        turn, squeeze = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1)
        part, centre = _surroundings(instances, place, 1.4 * radius + 10)
        alpha = _coverage(polygons, part.shape, centre, radius, turn, squeeze)
        if _has_room(alpha >= 0.5, part, instances, radius):
            break
    else:
        return
    ground, _ = _surroundings(canvas, place, 1.4 * radius + 10)
    u, v = _own_coordinates(part.shape, centre, radius, turn, squeeze)
    _cast_shadow(ground, alpha, light, radius)
    ground += alpha[..., None] * (_object_colour(rng, look, surface(u, v, rng), alpha, light, radius) - ground)
    part[alpha >= 0.5] = count + 1
    _surroundings(label, place, 1.4 * radius + 10)[0][alpha >= 0.5] = class_id


def _has_room(mask: np.ndarray, part: np.ndarray, instances: np.ndarray, radius: float) -> bool:
    """Returns whether most of an object is in the picture and enough of every earlier object stays visible."""
    if mask.sum() < 0.6 * radius**2:
        return False
    before = np.bincount(instances.ravel())[1:]
    covered = np.bincount(part[mask], minlength=len(before) + 1)[1:]
    return bool(np.all(covered <= _MAX_COVERED * before))


def _turn(points: np.ndarray, angle: float) -> np.ndarray:
    """Returns points [n, 2], rotated clockwise by `angle` (y points down)."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _coverage(
    polygons: list[np.ndarray], shape: tuple[int, ...], centre: np.ndarray, radius: float, turn: float, squeeze: float
) -> np.ndarray:
    """Returns the share of every pixel that the polygons cover, float32 [H, W].

    Where an even number of polygons overlap, nothing is covered, so a second polygon makes a hole.
    """
    height, width = shape
    mask = np.zeros((height * _SUPERSAMPLE, width * _SUPERSAMPLE), np.uint8)
    placed = [centre + radius * _turn(points * (1, squeeze), turn) for points in polygons]
    cv2.fillPoly(mask, [np.round(points * _SUPERSAMPLE * 16).astype(np.int32) for points in placed], 255, shift=4)
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def _own_coordinates(
    shape: tuple[int, ...], centre: np.ndarray, radius: float, turn: float, squeeze: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coordinates u and v of every pixel, each float32 [H, W]."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = (x + 0.5 - centre[0]) / radius, (y + 0.5 - centre[1]) / radius
    cos, sin = np.cos(turn), np.sin(turn)
    return (cos * x + sin * y).astype(np.float32), ((cos * y - sin * x) / squeeze).astype(np.float32)


def _cast_shadow(canvas: np.ndarray, alpha: np.ndarray, light: float, radius: float) -> None:
    """Darkens the ground beside an object, on the side away from the light, in place."""
    distance = 0.06 * radius + 2
    shift = np.array([[1, 0, -distance * np.cos(light)], [0, 1, -distance * np.sin(light)]], np.float32)
    shadow = cv2.warpAffine(alpha, shift, (alpha.shape[1], alpha.shape[0]))
    canvas *= 1 - 0.5 * cv2.GaussianBlur(shadow, (0, 0), 0.5 * distance)[..., None]


def _object_colour(
    rng: np.random.Generator,
    look: tuple[tuple[float, float], ...],
    pattern: np.ndarray,
    alpha: np.ndarray,
    light: float,
    radius: float,
) -> np.ndarray:
    """Returns the colours of an object, float32 [H, W, 3].

    Two colours of the look are mixed by the pattern (0..1). The rim is shaded so that the object looks rounded.
    """
    first = _colour(rng, *look)
    second = np.clip(0.4 * _colour(rng, *look) + 0.6 * first * rng.choice([0.35, 1.75]), 0.03, 1)
    colours = first + pattern[..., None] * (second - first)
    depth = cv2.distanceTransform((alpha >= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    bulge = cv2.GaussianBlur(1 - np.exp(-depth / (0.18 * radius)), (0, 0), 0.05 * radius + 0.5)
    slope_x, slope_y = cv2.Sobel(bulge, cv2.CV_32F, 1, 0), cv2.Sobel(bulge, cv2.CV_32F, 0, 1)
    facing = -(slope_x * np.cos(light) + slope_y * np.sin(light)) * 0.05 * radius
    shade = (
        0.95 + np.clip(facing, -0.45, 0.35) + 0.05 * _noise(rng, alpha.shape[0], alpha.shape[1], 0.2 * radius)[..., 0]
    )
    grain = 0.02 * _noise(rng, alpha.shape[0], alpha.shape[1], 1.5)
    return np.clip(colours * shade[..., None] + grain, 0, 1).astype(np.float32)


def _ring(radius: np.ndarray, count: int = 120) -> np.ndarray:
    """Returns a closed outline, [count, 2], given its distance from the centre at `count` equally spaced angles."""
    angles = np.arange(count) * (2 * np.pi / count)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], -1)


def _wave(phase: np.ndarray, sharpness: float = 3.0) -> np.ndarray:
    """Returns stripes from 0 to 1 with a period of 2 pi and soft edges."""
    return 1 / (1 + np.exp(-sharpness * np.sin(phase)))


def _leaf_outline(rng: np.random.Generator) -> list[np.ndarray]:
    t = np.linspace(-1, 1, 80)
    breadth = rng.uniform(0.4, 0.58) * (1 - t**2) ** 0.8 * (1 - 0.3 * t)
    teeth = 1 + 0.1 * (((t * 7) % 1) - 0.5)
    stalk = np.array([[-1.0, 0.04], [-1.25, 0.06], [-1.25, 0.0], [-1.0, -0.04]])
    upper, lower = np.stack([t, -breadth * teeth], -1), np.stack([t, breadth * teeth], -1)
    return [np.concatenate([upper, lower[::-1], stalk])]


def _leaf_surface(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pattern of a midrib and slanting veins."""
    rib = np.exp(-((v / 0.04) ** 2))
    phase = (u - 0.7 * np.abs(v)) * 2 * np.pi * rng.uniform(3.0, 4.0)
    return np.maximum(rib, np.clip(np.cos(phase), 0, 1) ** 4)


def _fish_outline(rng: np.random.Generator) -> list[np.ndarray]:
    t = np.linspace(0, 1, 50)
    x = 0.95 - 1.4 * t
    y = rng.uniform(0.36, 0.48) * np.sin(np.pi * np.clip(t, 0, 1) ** 0.75) ** 0.8 + 0.07 * t
    y = y * (1 + 0.35 * np.exp(-(((t - 0.45) / 0.12) ** 2)))  # This widens the body where the fins are.
    tail = np.array([[-0.98, 0.42], [-0.8, 0.0], [-0.98, -0.42]])
    upper, lower = np.stack([x, -y], -1), np.stack([x, y], -1)
    return [np.concatenate([upper[::-1], lower, tail])]


def _fish_surface(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pattern of rows of scales, a gill and an eye."""
    count = rng.uniform(7, 9)
    column = u * count
    row = v * count + 0.5 * (np.floor(column) % 2)
    du, dv = column - np.floor(column), row - np.floor(row) - 0.5
    scales = 1 / (1 + np.exp(-14 * (np.hypot(du - 0.1, 1.3 * dv) - 0.6)))
    head = u > 0.5
    gill = np.exp(-(((np.hypot(u - 0.85, v) - 0.38) / 0.03) ** 2)) * (u < 0.75)
    eye = np.hypot(u - 0.68, v + 0.1) < 0.075
    return np.where(head, np.maximum(0.85 * gill, eye), np.where(u < -0.5, _wave(v * 40), scales))


def _kite_outline(rng: np.random.Generator) -> list[np.ndarray]:
    breadth, waist = rng.uniform(0.55, 0.75), rng.uniform(-0.4, -0.2)
    corners = np.array([[-1, 0], [waist, -breadth], [1, 0], [waist, breadth]])
    return [corners]


def _kite_surface(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pattern of four fields of a chessboard and the seams between them."""
    fields = ((u > -0.3) ^ (v > 0)).astype(np.float32)
    seam = np.maximum(np.exp(-((v / 0.03) ** 2)), np.exp(-(((u + 0.3) / 0.03) ** 2)))
    return fields + seam * (0.5 - fields)


def _tyre_outline(rng: np.random.Generator) -> list[np.ndarray]:
    return [_ring(np.full(120, 0.9)), _ring(np.full(120, rng.uniform(0.4, 0.52)))]


def _tyre_surface(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pattern of a tread: grooves across the outer half and one groove around the tyre."""
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    grooves = _wave(angle * int(rng.integers(18, 25)), 5) * (distance > 0.72)
    around = np.exp(-(((distance - 0.7) / 0.03) ** 2))
    return np.maximum(grooves, around)


def _flower_outline(rng: np.random.Generator) -> list[np.ndarray]:
    petals = int(rng.integers(5, 9))
    angles = np.arange(240) * (2 * np.pi / 240)
    return [_ring(0.5 + 0.45 * np.abs(np.sin(petals * angles / 2)) ** 0.7, 240)]


def _flower_surface(u: np.ndarray, v: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the pattern of a dotted disc in the middle and fine streaks along the petals."""
    distance, angle = np.hypot(u, v), np.arctan2(v, u)
    streaks = 0.3 * _wave(angle * 40, 2) * np.clip(distance, 0, 1)
    dots = 0.75 + 0.25 * np.sin(u * 45) * np.sin(v * 45)
    return np.where(distance < 0.28, dots, streaks)


# For each class: its outline, its surface, and the ranges of hue (degrees), saturation and brightness.
_KINDS = (
    (_leaf_outline, _leaf_surface, ((90, 145), (0.45, 0.85), (0.3, 0.75))),
    (_fish_outline, _fish_surface, ((185, 225), (0.3, 0.75), (0.45, 0.9))),
    (_kite_outline, _kite_surface, ((-18, 18), (0.6, 0.9), (0.55, 0.95))),
    (_tyre_outline, _tyre_surface, ((0, 360), (0.0, 0.15), (0.12, 0.28))),
    (_flower_outline, _flower_surface, ((270, 325), (0.35, 0.8), (0.5, 0.95))),
)
