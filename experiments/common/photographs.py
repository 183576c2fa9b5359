"""Photographs on the command line: which files, names of their results, and those that failed."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import cv2
import jax

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import user_path

P = ParamSpec("P")
T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# What an image can lead to: it is no image, a result cannot be written, OpenCV or the device cannot take its size.
FAILURES = (InputError, OSError, MemoryError, cv2.error, jax.errors.JaxRuntimeError)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """The files that the arguments name, images in folders in alphabetical order, none twice.

    Raises:
      InputError: if there is none, or an argument does not exist.
    """
    if not arguments:
        raise InputError("no image given; name image files or folders of them after the flags")
    found: dict[str, Path] = {}
    for argument in arguments:
        for image in _images_in(user_path(argument, "IMAGE")):
            found.setdefault(os.path.realpath(image), image)
    return list(found.values())


def _images_in(path: Path) -> list[Path]:
    if not path.is_dir():
        if not os.path.lexists(path):
            raise InputError(f"no file or folder {path}; correct the name")
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read ({error.strerror}); correct its permissions") from error
    # Hidden files are no photographs: macOS writes ._a.jpg beside a.jpg. A link that leads nowhere is named later.
    images = [path / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    images = [image for image in images if image.is_file() or (image.is_symlink() and not image.is_dir())]
    if not images:
        raise InputError(f"no image in the folder {path}; expected files that end in {', '.join(SUFFIXES)}")
    return images


def result_names(images: Sequence[Path], folder: Path) -> list[str]:
    """One name an image, its stem, with a number where results would have equal names.

    Raises:
      InputError: if a result would overwrite one of the images.
    """
    inputs = {os.path.realpath(path) for path in images}
    taken: set[str] = set()
    names = []
    for path in images:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}_{number}"
        for result in result_files(folder, name):
            if os.path.realpath(result) in inputs:
                raise InputError(f"the results would overwrite the image {result}; choose another --output")
        taken.add(name.casefold())
        names.append(name)
    return names


class Failures:
    """The images that failed: each is named on stderr when it fails, and all again at the end."""

    def __init__(self, total: int):
        self._total = total
        self._paths: list[Path] = []

    def attempt(self, path: Path, do: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | None:
        """Returns what `do` returns; None, and the image is named, after an error that concerns this image alone."""
        try:
            return do(*arguments, **keywords)
        except FAILURES as error:
            self._paths.append(path)
            text = " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
                text = f"memory does not suffice or the device failed ({text[:200]}); lower --config.inference.max_side"
            where = "" if str(path) in text else f"{path}: "
            print(f"error: {where}{text}", file=sys.stderr, flush=True)
            return None

    def listed(self) -> int:
        """Prints the images that failed if there are several; returns their number."""
        if len(self._paths) > 1:
            names = ", ".join(map(str, self._paths))
            print(f"error: {len(self._paths)} of {self._total} images failed: {names}", file=sys.stderr)
        return len(self._paths)


def result_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Returns the paths of a photograph's label map and overlay."""
    return folder / f"{name}.png", folder / f"{name}_overlay.jpg"
