"""Executes the notebook; as a program it stores the outputs in experiments/colab_demo.ipynb.

    python tests/support/demo_notebook.py

Run it after each change of a code cell, in an environment with the packages of tests/requirements.txt. It takes
about four minutes on two free cores.
"""

import base64
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "experiments/colab_demo.ipynb"
EXECUTED = "executed_code"  # key in the metadata of the notebook: digest of the code whose outputs it shows


def digest(notebook):
    """Returns a digest of all code cells."""
    code = json.dumps([cell.source for cell in notebook.cells if cell.cell_type == "code"])
    return hashlib.sha256(code.encode()).hexdigest()


def execute(notebook, folder, timeout=1800, **parameters):
    """Executes all cells in a folder, as "Run all" does, with other values for parameters."""
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    source, cell.source = (
        cell.source,
        cell.source + "".join(f"\n{key} = {value!r}" for key, value in parameters.items()),
    )
    try:
        NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": folder}}).execute()
    finally:
        cell.source = source


def texts(notebook):
    """Yields all text that the outputs show."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield output.get("text", "")
            yield from (str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def pictures(notebook):
    """Yields the outputs that are pictures."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if {"image/jpeg", "image/png"} & set(output.get("data", ())):
                yield output


def tidy(notebook, folder):
    """Joins printed lines, makes paths in the folder relative, and makes PNG files small."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        outputs = []
        for output in cell.get("outputs", ()):
            if output.output_type == "stream":
                output.text = output.text.replace(f"{folder}/", "")
                if outputs and outputs[-1].get("name") == output.name:
                    outputs[-1].text += output.text
                    continue
            elif "image/png" in output.get("data", {}):
                output.data["image/png"] = with_256_colours(output.data["image/png"])
            outputs.append(output)
        if cell.cell_type == "code":
            cell.outputs = outputs
    notebook.metadata["language_info"] = {"name": "python"}


def with_256_colours(encoded):
    """Returns a PNG file, encoded as base64, with a palette instead of colours per pixel."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB").quantize().save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def main():
    """Executes the notebook in an empty folder and stores it with its outputs."""
    os.environ["PYTHONPATH"] = str(ROOT)
    notebook, begin = nbformat.read(NOTEBOOK, as_version=4), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder)
    tidy(notebook, folder)
    notebook.metadata[EXECUTED] = digest(notebook)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {time.monotonic() - begin:.0f} s, {NOTEBOOK.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
