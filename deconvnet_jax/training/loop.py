"""The training loop: steps, metrics, evaluation, checkpoints; resumes what it finds in the run's folder."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from PIL import Image

from deconvnet_jax.errors import InputError
from deconvnet_jax.models import DeconvNet
from deconvnet_jax.training.metric_writer import MetricWriter
from deconvnet_jax.training.optimizer import make_optimizer, step_schedule
from deconvnet_jax.training.parallel import AXIS_NAME, BatchIterator, data_parallel, first_replica
from deconvnet_jax.training.prefetch import PrefetchedBatches
from deconvnet_jax.training.progress import Progress
from deconvnet_jax.training.state import TrainState, create_state
from deconvnet_jax.training.step import train_step
from deconvnet_jax.weights import open_checkpoints, restore_training, save_checkpoint


class Evaluation(NamedTuple):
    """What an evaluation found: scalars, with "mean_iou" among them, and pictures, uint8 RGB [H, W, 3]."""

    scores: dict[str, float]
    images: dict[str, np.ndarray]


def train(
    config: Mapping[str, Any],
    workdir: Path,
    *,
    net: DeconvNet,
    variables: chex.ArrayTree,
    batches: BatchIterator,
    info: dict[str, Any],
    evaluate: Callable[[chex.ArrayTree], Evaluation],
    class_weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Trains up to `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Writes to the folder: checkpoints/ (Orbax), metrics.jsonl and tensorboard/, pictures/ of the evaluations.

    Args:
      config: the experiment's settings (experiments/configs/default.py).
      workdir: the run's folder.
      net: the network, with the axis name that its batch statistics are averaged over, if any.
      variables: initial values.
      batches: this process's share of every batch.
      info: saved with every checkpoint: "config" and "class_names".
      evaluate: from variables on one device to scores and pictures.
      class_weights: of the loss; see `segmentation_loss`.

    Returns:
      The scores of the last evaluation, empty if there was none in this call.

    Raises:
      InputError: if the loss is no longer a number.
    """
    optimizer = make_optimizer(config["optimizer"], variables["params"])
    freeze = tuple(config["optimizer"]["freeze"])
    options = {"net": net, "optimizer": optimizer, "freeze": freeze, "class_weights": class_weights}
    step_fn = data_parallel(partial(train_step, axis_name=AXIS_NAME, **options))
    schedule = step_schedule(*(config["optimizer"][key] for key in ("learning_rate", "drops", "drop_factor")))
    batches = PrefetchedBatches(batches)
    scores: dict[str, float] = {}
    with open_checkpoints(workdir / "checkpoints") as manager, closing(MetricWriter(workdir)) as writer:
        state = _resume(manager, create_state(variables, optimizer), batches)
        start, last = int(state.step), config["num_steps"]
        recent, since = [], time.perf_counter()
        with Progress(start, last) as progress:
            for step in range(start + 1, last + 1):
                state, metrics = step_fn(state, next(batches))
                recent.append(metrics)
                if step == start + 1:
                    jax.block_until_ready(metrics)  # compiled now; the rate is that of the steps after it
                    since, timed = time.perf_counter(), 0
                else:
                    timed += 1
                if step % config["log_every"] == 0 or step == last:
                    scalars = _mean(recent) | {"learning_rate": float(schedule(step - 1))}
                    scalars["images_per_second"] = timed * config["batch_size"] / (time.perf_counter() - since)
                    _check_finite(scalars["loss"], step, manager.latest_step())
                    writer.write_scalars(step, {f"train/{name}": value for name, value in scalars.items()})
                    progress.update(step, scalars)
                    recent, since, timed = [], time.perf_counter(), 0
                evaluated = _due(step, config["eval_every"], last)
                if evaluated:
                    scores = _evaluate(evaluate, state, step, workdir, writer)
                    progress.evaluated(step, scores)
                if evaluated or step == last or _due(step, config["checkpoint_every"], last):
                    save_checkpoint(
                        manager,
                        step,
                        variables=state.variables,
                        optimizer=state.opt_state,
                        data=batches.get_state(),
                        info=info,
                        metrics=scores if evaluated else None,
                    )
                    since, timed = time.perf_counter(), 0
    return scores


def _resume(manager: Any, state: TrainState, batches: BatchIterator) -> TrainState:
    if manager.latest_step() is None:
        return state
    step, variables, opt_state, position = restore_training(manager, state.variables, state.opt_state)
    batches.set_state(position)
    return TrainState(state.step + step, variables, opt_state)


def _due(step: int, every: int, last: int) -> bool:
    """Every so many steps and at the end; never for 0."""
    return every > 0 and (step % every == 0 or step == last)


def _mean(metrics: list[dict[str, jax.Array]]) -> dict[str, float]:
    values = jax.device_get(metrics)
    return {name: float(np.mean([value[name] for value in values])) for name in values[0]}


def _check_finite(loss: float, step: int, saved: int | None) -> None:
    if not math.isfinite(loss):
        kept = f"the checkpoint of step {saved} is kept" if saved else "there is no checkpoint yet"
        raise InputError(
            f"training diverged: the loss is {loss} at step {step}; lower config.optimizer.learning_rate ({kept})"
        )


def _evaluate(
    evaluate: Callable[[chex.ArrayTree], Evaluation], state: TrainState, step: int, workdir: Path, writer: MetricWriter
) -> dict[str, float]:
    evaluation = evaluate(first_replica(state.variables))
    writer.write_scalars(step, {f"eval/{name}": value for name, value in evaluation.scores.items()})
    writer.write_images(step, {f"eval/{name}": image for name, image in evaluation.images.items()})
    folder = workdir / "pictures"
    folder.mkdir(exist_ok=True)
    for name, image in evaluation.images.items():
        Image.fromarray(image).save(folder / f"step_{step:06d}_{name}.png")
    return evaluation.scores
