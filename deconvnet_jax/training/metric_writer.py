"""Scalars and pictures of a run: TensorBoard event files and JSON lines, under the method names of clu."""

import json
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from deconvnet_jax.errors import InputError

METRICS_FILE = "metrics.jsonl"


class MetricWriter:
    """Writes `metrics.jsonl`, TensorBoard files and pictures/ into a folder; goes on with those that are there.

    With several processes the first one writes, the others do nothing.
    """

    def __init__(self, folder: str | Path, after_step: int | None = None):
        """
        Args:
          folder: of the run.
          after_step: what a run that was killed had written about later steps is removed: they come again.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / METRICS_FILE
        if after_step is not None and path.exists():
            _drop_lines_after(path, after_step)
        self._lines = path.open("a")
        purge_step = None if after_step is None else after_step + 1
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=purge_step)

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """One JSON line {"step": ..., name: value, ...} and one TensorBoard point each; NaN, no score, is left out."""
        if not self._active:
            return
        known = {name: value for name, value in scalars.items() if np.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **known}) + "\n")
        self._lines.flush()  # a killed run keeps every line
        for name, value in known.items():
            self._board.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures, uint8 RGB [H, W, 3], to TensorBoard and as pictures/step_STEP_NAME.png."""
        if not self._active:
            return
        folder = self._folder / "pictures"
        for name, image in images.items():
            folder.mkdir(exist_ok=True)
            self._board.add_image(name, image, step, dataformats="HWC")
            Image.fromarray(image).save(folder / f"step_{step:06d}_{name.split('/')[-1]}.png")

    def close(self) -> None:
        """Writes what is left and closes the files."""
        if self._active:
            self._lines.close()
            self._board.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """Also drops a last line that was cut off."""
    kept = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number}: no JSON with a step; correct or delete the file") from error
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept))
    temporary.replace(path)
