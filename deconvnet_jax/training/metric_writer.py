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
_VALUES = (int, float, type(None))


class MetricWriter:
    """Writes `metrics.jsonl`, TensorBoard files and pictures/ into a folder; goes on with those that are there.

    With several processes the first one writes, the others do nothing.
    """

    def __init__(self, folder: str | Path, after_step: int):
        """
        Args:
          folder: of the run.
          after_step: the last step that is done; what a run that was killed had written about later ones is removed:
            they come again.
        """
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / METRICS_FILE
        if path.exists():
            _drop_lines_after(path, after_step)
        self._lines = path.open("a")
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=after_step + 1)

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


def metric_lines(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics.jsonl, "step" among the values of each; a last line that was cut off is left out.

    Raises:
      InputError: if another one is damaged.
    """
    lines = path.read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if not isinstance(values["step"], int) or not all(isinstance(v, _VALUES) for v in values.values()):
                raise ValueError
            found.append(values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines):
                raise InputError(
                    f"{path}, line {number}: no JSON object with a step and numbers; correct or delete the file"
                ) from error
    return found


def _drop_lines_after(path: Path, step: int) -> None:
    kept = [line for line in metric_lines(path) if line["step"] <= step]
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    temporary.replace(path)
