"""Finds the photographs that a command line names, names their results and collects failures."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec, TypeVar

import cv2
import jax

from deconvnet_jax.errors import InputError
from deconvnet_jax.files import no_file, user_path

P = ParamSpec("P")
T = TypeVar("T")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
# Errors due to one image: it is no image, a result cannot be written, or OpenCV or the device cannot take its size.
FAILURES = (InputError, OSError, MemoryError, cv2.error, jax.errors.JaxRuntimeError)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Returns the image files that arguments name. No file is returned twice.

    Args:
      arguments: Files, and folders, whose image files are taken in alphabetical order. Hidden files are skipped.

    Raises:
      InputError: if there is no image, or an argument does not exist.
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
            raise InputError(no_file(path, "file or folder"))
        return [path]
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise InputError(f"the folder {path} cannot be read ({error.strerror}); correct its permissions") from error
    # Hidden files are no photographs: macOS writes ._a.jpg beside a.jpg. A broken link is kept, and reported when read.
    images = [path / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    images = [image for image in images if image.is_file() or (image.is_symlink() and not image.is_dir())]
    if not images:
        raise InputError(f"no image in the folder {path}; expected files that end in {', '.join(SUFFIXES)}")
    return images


def result_names(images: Sequence[Path], folder: Path) -> list[str]:
    """Returns a name for each image's results: the file name without suffix, with a number if two would be equal.

    Args:
      images: The image files.
      folder: Folder for the results.

    Returns:
      One name per image, in order.

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
    """List of images that failed. Each is named on stderr when it fails, and all again at the end."""

    def __init__(self, total: int):
        """Starts an empty list.

        Args:
          total: Number of all images, for the last message.
        """
        self._total = total
        self._paths: list[Path] = []

    def attempt(self, path: Path, do: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | None:
        """Calls a function for an image. An error that concerns this image alone is printed, and the image noted.

        Args:
          path: The image.
          do: The function.
          arguments: Positional arguments of `do`.
          keywords: Keyword arguments of `do`.

        Returns:
          What `do` returns; None after such an error.
        """
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
        """Prints all images that failed if there are several; returns their number."""
        if len(self._paths) > 1:
            names = ", ".join(map(str, self._paths))
            print(f"error: {len(self._paths)} of {self._total} images failed: {names}", file=sys.stderr)
        return len(self._paths)


def result_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Returns the paths of an image's label map (.png) and overlay (.jpg).

    Args:
      folder: Folder for the results.
      name: Name from `result_names`.
    """
    return folder / f"{name}.png", folder / f"{name}_overlay.jpg"
