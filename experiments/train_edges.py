"""Trains the small edge network from which the object proposals come, and measures it.

    python -m experiments.train_edges --data_dir=BSR/BSDS500/data --output=edge_network.npz

The data is BSDS500 as downloaded (images/ and groundTruth/), or a folder with {train,val,test}/NAME.jpg and
NAME_boundaries.png, 255 x the share of people who drew a boundary at a pixel. Trains on train and val, scores on test;
the last line of stdout is one JSON object. About 20 minutes on two CPU cores. The weights that come with this project,
deconvnet_jax/proposals/edge_network.npz, were made by this command with its defaults.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from deconvnet_jax.evaluation import EdgeScores, edge_scores
from deconvnet_jax.files import user_path, whole_file
from deconvnet_jax.models import Layers
from deconvnet_jax.ops import edge_normals, thin_edges
from deconvnet_jax.proposals.edge_boxes import gradient_edges
from deconvnet_jax.proposals.edge_network import network_edges_batch, read_edge_network, write_edge_network
from deconvnet_jax.proposals.edge_training import BoundaryExample, read_bsds500, train_edge_network

from .common import cli
from .common.output import output_file

STEPS = 3000


def define_flags() -> None:
    """Defines the command line."""
    cli.define_path("data_dir", None, "folder of BSDS500")
    cli.define_path("output", None, "file for the weights, .npz")
    flags.DEFINE_integer("steps", STEPS, "updates; 0: only score the file that is there", lower_bound=0)
    flags.DEFINE_integer("batch_size", 8, "crops of 256x256 a step", lower_bound=1)
    flags.DEFINE_float("learning_rate", 2e-3, "at its highest", lower_bound=0.0)
    flags.DEFINE_integer("seed", 0, "initial weights, crops, augmentation", lower_bound=0)
    flags.DEFINE_list("train_splits", ["train", "val"], "splits to learn from")
    flags.DEFINE_string("test_split", "test", "split to score")
    flags.mark_flags_as_required(["data_dir", "output"])


def main(argv: Sequence[str]) -> None:
    """Trains and scores."""
    cli.no_arguments(argv)
    print(json.dumps(run(**cli.arguments_of(run))))


def run(
    data_dir: str | Path,
    output: str | Path,
    *,
    steps: int = STEPS,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    train_splits: Sequence[str] = ("train", "val"),
    test_split: str = "test",
) -> dict[str, Any]:
    """Arguments as the flags; returns what the JSON line says.

    Raises:
      InputError: for data that cannot be used, or a file that cannot be written.
    """
    path = user_path(output, "--output")
    test = read_bsds500(data_dir, test_split)
    if steps:
        output_file(path, "--output")
        examples = [example for split in train_splits for example in read_bsds500(data_dir, split)]
        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            bar.update(done, total)
            if done % 100 == 0 or done == total:
                mean = sum(losses[-100:]) / len(losses[-100:])
                print(f"step {done}/{total}  loss {mean:.4f}", file=sys.stderr)

        with cli.ProgressBar("training") as bar:
            params = train_edge_network(
                examples, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, progress=progress
            )
        with whole_file(path) as temporary:
            write_edge_network(temporary, params)
    params = read_edge_network(path)  # as it is stored: float16
    scores = score(test, params)
    return {
        "file": str(path),
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "images": len(test),
        **scores._asdict(),
        "ods_without_weights": score(test, None).ods,
    }


def score(examples: Sequence[BoundaryExample], params: Layers | None) -> EdgeScores:
    """Of the network, or of the edge map that needs no weights."""
    pairs = []
    with cli.ProgressBar("scoring") as bar:
        for done, example in enumerate(examples, 1):
            edges = network_edges_batch([example.image], params)[0] if params else gradient_edges(example.image)
            pairs.append((thin_edges(edges, edge_normals(edges)), example.share))
            bar.update(done, len(examples))
    return edge_scores(pairs)


if __name__ == "__main__":
    define_flags()
    cli.run(main)
