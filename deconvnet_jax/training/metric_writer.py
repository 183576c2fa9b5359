"""Scalars and pictures of a run: TensorBoard event files and JSON lines, under the method names of clu."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter


class MetricWriter:
    """Writes `metrics.jsonl` and TensorBoard files into a folder; appends if they are there."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / "metrics.jsonl").open("a")
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """One JSON line {"step": ..., name: value, ...} and one TensorBoard point each."""
        self._lines.write(json.dumps({"step": step, **scalars}) + "\n")
        self._lines.flush()  # a killed run keeps every line
        for name, value in scalars.items():
            self._board.add_scalar(name, value, step)

    def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures, uint8 RGB [H, W, 3], to TensorBoard."""
        for name, image in images.items():
            self._board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Writes what is left and closes the files."""
        self._lines.close()
        self._board.close()
