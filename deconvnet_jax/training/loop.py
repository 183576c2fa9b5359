"""The training loop: steps, metrics, checkpoints, evaluation; resumes what it finds in the run's folder."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deconvnet_jax.models import DeconvNet, Layers, Network, Variables
from deconvnet_jax.training.checkpoints import add_metrics, restore_newest, save_checkpoint
from deconvnet_jax.training.interruption import Interruption, Preempted
from deconvnet_jax.training.metric_writer import MetricWriter, Progress
from deconvnet_jax.training.optimizer import SCHEDULES, make_optimizer, make_plateau, make_schedule
from deconvnet_jax.training.parallel import (
    AXIS_NAME,
    BatchIterator,
    PrefetchedBatches,
    batch_layout,
    data_parallel,
    first_replica,
    group_size,
    replicate,
)
from deconvnet_jax.training.state import TrainState, create_state
from deconvnet_jax.training.step import train_step
from deconvnet_jax.training.step_monitor import ProfilerWindow, StepMonitor
from deconvnet_jax.training.workdir import GROUP_SIZE
from deconvnet_jax.weights import Checkpoints, finish_saving, open_checkpoints


class Evaluation(NamedTuple):
    """What an evaluation found: scores, with "mean_iou" among them, and pictures, uint8 RGB [H, W, 3], by name.

    Scores of a class are named "iou/CLASS", and NaN if it does not occur. The same in every process.
    """

    scores: dict[str, float]
    images: dict[str, np.ndarray]


def train(
    config: Mapping[str, Any],
    workdir: Path,
    *,
    net: Network,
    variables: Variables,
    batches: BatchIterator,
    info: dict[str, Any],
    evaluate: Callable[[Variables], Evaluation],
    class_weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Trains up to `config.num_steps`, from the newest checkpoint in `workdir` if there is one.

    Writes to the folder: checkpoints/ (Orbax), metrics.jsonl and tensorboard/, pictures/ of the evaluations.

    Args:
      config: the experiment's settings (experiments/configs/default.py).
      workdir: the run's folder.
      net: the network.
      variables: initial values, on the host.
      batches: this process's share of every batch.
      info: saved with every checkpoint: "config" and "class_names".
      evaluate: from variables on one device to scores and pictures.
      class_weights: of the loss; see `segmentation_loss`.

    Returns:
      The scores of the last evaluation, empty if there was none.

    Raises:
      InputError: if a loss or a gradient is no longer a number, a checkpoint cannot be written or none can be read.
      Preempted: after SIGTERM or SIGINT, when the last step is saved.
    """
    step, optimizer = make_step(config, net, variables["params"], jax.device_count(), class_weights)
    if isinstance(net, DeconvNet) and net.batch_norm:
        info = {**info, GROUP_SIZE: group_size(config, jax.device_count())}
    step_fn = data_parallel(step)
    state, ahead = create_state(variables, optimizer), PrefetchedBatches(batches)
    with ExitStack() as stack:
        manager = stack.enter_context(open_checkpoints(workdir / "checkpoints"))
        state = replicate(_resume(manager, state, ahead))
        start = int(first_replica(state.step))
        monitor = StepMonitor(workdir, config["batch_size"], saved_step=start or None)
        run = _Run(
            config=config,
            info=info,
            evaluate=evaluate,
            manager=manager,
            batches=ahead,
            writer=stack.enter_context(closing(MetricWriter(workdir, start))),
            monitor=monitor,
            interruption=stack.enter_context(Interruption()),
            profiler=stack.enter_context(closing(ProfilerWindow(workdir, start, config["profile"]))),
            progress=stack.enter_context(Progress(start, config["num_steps"])),
        )
        return run.go(step_fn, state, start)


def make_step(
    config: Mapping[str, Any],
    net: Network,
    params: Layers,
    devices: int,
    class_weights: Sequence[float] | None = None,
) -> tuple[Callable[..., tuple[TrainState, dict[str, jax.Array]]], optax.GradientTransformationExtraArgs]:
    """Returns the step of a config, as each device runs it, and its optimizer.

    Args:
      config: the experiment's settings.
      net: the network.
      params: its parameters, or their shapes.
      devices: number of them.
      class_weights: of the loss; see `segmentation_loss`.

    Raises:
      InputError: if a number of the batch's layout does not divide the other.
    """
    layout = batch_layout(config["batch_size"], devices, config["micro_batch"], config["bn_group"])
    optimizer = make_optimizer(config["optimizer"], params)
    if isinstance(net, DeconvNet):
        over_devices = layout.devices_a_group > 1
        net = net.clone(
            remat=config["remat"],
            bn_axis_name=AXIS_NAME if over_devices else None,
            bn_axis_groups=layout.device_groups if over_devices else None,
        )
    step = partial(
        train_step,
        net=net,
        optimizer=optimizer,
        axis_name=AXIS_NAME,
        layout=layout,
        seed=config["seed"],
        freeze=tuple(config["optimizer"]["freeze"]),
        class_weights=class_weights,
        caffe_gradients=config["caffe_gradients"],
        all_reduce_dtype=jnp.dtype(config["all_reduce_dtype"]),
    )
    return step, optimizer


@dataclass(frozen=True)
class _Run:
    config: Mapping[str, Any]
    info: dict[str, Any]
    evaluate: Callable[[Variables], Evaluation]
    manager: Checkpoints
    batches: PrefetchedBatches
    writer: MetricWriter
    monitor: StepMonitor
    interruption: Interruption
    profiler: ProfilerWindow
    progress: Progress

    def go(self, step_fn: Callable[..., Any], state: TrainState, start: int) -> dict[str, float]:
        last, scores = self.config["num_steps"], {}
        if start and _due(start, self.config["eval_every"], last):
            scores, state = self._evaluated(state, start)
        for step in range(start + 1, last + 1):
            self.profiler.before(step)
            with jax.transfer_guard("disallow"):  # nothing is copied between host and devices but the batches
                batch = next(self.batches)
                state, metrics = step_fn(state, batch)
            self.profiler.after(step, metrics)
            self.monitor.add(step, metrics, batch)
            if step % self.config["log_every"] == 0 or step == last:
                self._log(step, state)
            stop = self.interruption.requested(step)
            evaluate = _due(step, self.config["eval_every"], last)
            if stop or evaluate or step == last or _due(step, self.config["checkpoint_every"], last):
                self._save(step, state)
            if stop:
                finish_saving(self.manager)
                raise Preempted(step, stop)
            if evaluate:
                scores, state = self._evaluated(state, step)
        finish_saving(self.manager)
        return scores

    def _log(self, step: int, state: TrainState) -> None:
        scalars = self.monitor.take()
        rate = make_schedule(self.config["optimizer"])(step - 1) * first_replica(state.plateau.scale)
        scalars["learning_rate"] = float(rate)
        self.writer.write_scalars(step, {f"train/{name}": value for name, value in scalars.items()})
        self.progress.update(step, scalars)

    def _save(self, step: int, state: TrainState) -> None:
        with self.monitor.paused():  # has read all steps: a state that diverged is never saved
            self.writer.flush()
            save_checkpoint(
                self.manager,
                step,
                variables=state.variables,
                optimizer=_optimizer_item(state),
                data=self.batches.get_state(),
                info=self.info,
            )
        self.monitor.saved_step = step

    def _evaluated(self, state: TrainState, step: int) -> tuple[dict[str, float], TrainState]:
        """The scores of a saved step, found now or kept with it, and the state that has taken note of them."""
        scores = self.manager.metrics(step)
        if scores is None:
            with self.monitor.paused():
                with self.interruption.at_once(step):
                    evaluation = self.evaluate(first_replica(state.variables))
                scores = {name: value for name, value in evaluation.scores.items() if "/" not in name}
                self.writer.write_scalars(step, {f"eval/{name}": value for name, value in evaluation.scores.items()})
                self.writer.write_images(step, {f"eval/{name}": image for name, image in evaluation.images.items()})
                add_metrics(self.manager, step, scores)
            self.progress.evaluated(step, scores)
        settings = self.config["optimizer"]
        if SCHEDULES[settings["schedule"]].of_scores:
            metric = settings["plateau_metric"]
            plateau = jax.device_get(first_replica(state.plateau))
            plateau = make_plateau(settings).update({}, plateau, value=-scores[metric])[1]
            state = state.replace(plateau=replicate(plateau))
        return scores, state


def _resume(manager: Checkpoints, state: TrainState, batches: PrefetchedBatches) -> TrainState:
    restored = restore_newest(manager, state.variables, _optimizer_item(state))
    if restored is None:
        return state
    step, variables, optimizer, position = restored
    batches.set_state(position)
    return TrainState(state.step + step, variables, optimizer["momentum"], optimizer["plateau"])


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    return {"momentum": state.opt_state, "plateau": state.plateau}


def _due(step: int, every: int, last: int) -> bool:
    """Every so many steps and at the end; never for 0."""
    return every > 0 and (step % every == 0 or step == last)
