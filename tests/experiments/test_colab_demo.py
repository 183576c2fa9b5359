"""Runs the notebook from top to bottom with few steps and scenes."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "experiments/colab_demo.ipynb"


def test_outputs_are_small():
    assert NOTEBOOK.stat().st_size < 1_000_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Jupyter
def test_runs_from_top_to_bottom(tmp_path, rng):
    photo = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype="uint8")).save(photo)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    shorter = {"steps": 4, "train_scenes": 6, "val_scenes": 2, "run": str(tmp_path / "run"), "your_image": str(photo)}
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in shorter.items())
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if {"image/jpeg", "image/png"} & set(output.get("data", ()))
    ]
    assert len(pictures) == 7  # examples, curves, an evaluation, results, figures 4 and 6, your picture
    assert not [cell for cell in notebook.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert (tmp_path / "run/evaluation/metrics.json").exists()
    assert len(nbformat.writes(notebook)) < 1_000_000
