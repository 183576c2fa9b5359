"""Trains the edge network of the object proposals and scores it on BSDS500."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deconvnet_jax.evaluation import EdgeScores, edge_scores
from deconvnet_jax.files import user_path, whole_file
from deconvnet_jax.models import Layers
from deconvnet_jax.ops import edge_normals, thin_edges
from deconvnet_jax.proposals.edge_boxes import gradient_edges
from deconvnet_jax.proposals.edge_network import network_edges_batch, read_edge_network, write_edge_network
from deconvnet_jax.proposals.edge_training import BoundaryExample, read_bsds500, train_edge_network
from deconvnet_jax.terminal import ProgressBar, is_live

from ..common.output import output_file

STEPS = 3000


def run(
    bsds_root: str | Path,
    output: str | Path,
    *,
    steps: int = STEPS,
    batch_size: int = 8,
    learning_rate: float = 2e-3,
    seed: int = 0,
    train_splits: Sequence[str] = ("train", "val"),
    eval_split: str = "test",
) -> dict[str, Any]:
    """Trains the edge network, unless `steps` is 0, and scores it.

    Args:
      bsds_root: Folder of BSDS500, or one with {train,val,test}/NAME.jpg and NAME_boundaries.png.
      output: The .npz file of the weights.
      steps: Number of training steps; 0: the weights in `output` are scored.
      batch_size: Crops of 256x256 pixels per step.
      learning_rate: Highest learning rate of the schedule.
      seed: Seed of initial weights, crops and augmentation.
      train_splits: Splits to train on.
      eval_split: The split to score.

    Returns:
      The scores, as JSON values.

    Raises:
      InputError: for data that cannot be used, or a file that cannot be read or written.
    """
    path = user_path(output, "--output")
    test = read_bsds500(bsds_root, eval_split)
    if steps:
        output_file(path, "--output")
        examples = [example for split in train_splits for example in read_bsds500(bsds_root, split)]
        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            bar.update(done, total)
            if done % 100 == 0 or done == total:
                mean = sum(losses[-100:]) / len(losses[-100:])
                print(f"step {done}/{total}  loss {mean:.4f}", file=sys.stderr)

        with ProgressBar("training", shown=is_live(sys.stderr)) as bar:
            params = train_edge_network(
                examples, steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, progress=progress
            )
        with whole_file(path) as temporary:
            write_edge_network(temporary, params)
    params = read_edge_network(path)  # The stored weights are float16.
    scores = score(test, params)
    return {
        "file": str(path),
        "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
        "images": len(test),
        **scores._asdict(),
        "ods_without_weights": score(test, None).ods,
    }


def score(examples: Sequence[BoundaryExample], params: Layers | None) -> EdgeScores:
    """Scores edge maps against boundaries that people drew.

    Args:
      examples: The photographs with their boundaries.
      params: Parameters of the edge network; None: the edge map of "gradient", which needs no weights.

    Returns:
      Scores over all examples.
    """
    pairs = []
    with ProgressBar("scoring") as bar:
        for done, example in enumerate(examples, 1):
            edges = network_edges_batch([example.image], params)[0] if params else gradient_edges(example.image)
            pairs.append((thin_edges(edges, edge_normals(edges)), example.share))
            bar.update(done, len(examples))
    return edge_scores(pairs)
