"""Runs the training loop: steps, metrics, checkpoints and evaluations; resumes the run that it finds in the folder."""

import json
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
from deconvnet_jax.short_repr import short_repr
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
from deconvnet_jax.training.trackers import NO_TRACKER, Tracker
from deconvnet_jax.training.workdir import GROUP_SIZE, flatten
from deconvnet_jax.weights import AVERAGES, Checkpoints, finish_saving, open_checkpoints


class Evaluation(NamedTuple):
    """The results of an evaluation, the same in every process.

    Attributes:
      scores: {name: value}, with "mean_iou" among them. The score of a class is named "iou/CLASS"; it is NaN if the
        class does not occur. Checkpoints keep only names without a slash.
      images: {name: uint8 RGB [H, W, 3]}, pictures of any size for TensorBoard and the folder `pictures`.
    """

    scores: dict[str, float]
    images: dict[str, np.ndarray]

    __repr__ = short_repr


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
    """Trains until step `config["num_steps"]`, from the newest checkpoint in `workdir` if there is one.

    Uses all devices of all processes; every process must call it. Writes checkpoints/ (Orbax), metrics.jsonl,
    tensorboard/ and pictures/ into the folder, and prints progress lines on stderr. `config["tracker"]`, if any, names
    an experiment tracker that gets the metrics and pictures, too.

    Args:
      config: the experiment's settings (experiments/configs/default.py); a nested mapping.
      workdir: the run's folder, which exists (`claim_workdir`).
      net: the network to train.
      variables: {"params", "batch_stats"}, float32, the initial values; a checkpoint in `workdir` replaces them.
      batches: this process's share of every batch; `local_batch_size` crops each.
      info: the run's description, a JSON object with "config" and "class_names"; saved with every checkpoint.
      evaluate: called with the current variables, or their averages if `config["ema_decay"]` is set, on this
        process's first device; returns an `Evaluation`.
      class_weights: [K], the weight of each class in the loss (`segmentation_loss`); None weights all classes alike.

    Returns:
      The scores of the last evaluation, without those of single classes; empty if there was no evaluation.

    Raises:
      InputError: if the loss, a norm or a statistic is no longer finite, a checkpoint cannot be written, or none of the
        existing checkpoints can be read.
      Preempted: after SIGTERM or SIGINT, once the last step is saved.
    """
    step, optimizer = make_step(config, net, variables["params"], jax.device_count(), class_weights)
    if isinstance(net, DeconvNet) and net.batch_norm:
        info = {**info, GROUP_SIZE: group_size(config, jax.device_count())}
    step_fn = data_parallel(step)
    state = create_state(variables, optimizer, averaged=bool(config.get("ema_decay")))
    ahead = PrefetchedBatches(batches)
    with ExitStack() as stack:
        manager = stack.enter_context(open_checkpoints(workdir / "checkpoints"))
        state = replicate(_resume(manager, state, ahead))
        start = int(first_replica(state.step))
        monitor = StepMonitor(workdir, config["batch_size"], saved_step=start or None)
        tracker = stack.enter_context(_tracker(config, workdir))
        run = _Run(
            config=config,
            info=info,
            evaluate=evaluate,
            manager=manager,
            batches=ahead,
            writer=stack.enter_context(closing(MetricWriter(workdir, start, tracker))),
            monitor=monitor,
            interruption=stack.enter_context(Interruption()),
            profiler=stack.enter_context(closing(ProfilerWindow(workdir, start, config["profile"]))),
            progress=stack.enter_context(Progress(start, config["num_steps"])),
        )
        return run.go(step_fn, state, start)


def _tracker(config: Mapping[str, Any], workdir: Path) -> Tracker:
    """Returns the tracker of a run; configs from before trackers existed have none."""
    settings = json.loads(json.dumps(config))
    name, project = config.get("tracker", NO_TRACKER), config.get("tracker_project", "")
    return Tracker(name, project, workdir, settings, flatten(settings))


def make_step(
    config: Mapping[str, Any],
    net: Network,
    params: Layers,
    devices: int,
    class_weights: Sequence[float] | None = None,
) -> tuple[Callable[..., tuple[TrainState, dict[str, jax.Array]]], optax.GradientTransformationExtraArgs]:
    """Returns the training step that a config describes, and its optimizer.

    Args:
      config: the experiment's settings: batch_size, micro_batch, bn_group, seed, caffe_gradients, remat,
        all_reduce_dtype, ema_decay and the section "optimizer".
      net: the network to train.
      params: {layer: {part: array}}, its parameters or their shapes.
      devices: the number of devices of all processes that share a batch.
      class_weights: [K], the weight of each class in the loss (`segmentation_loss`); None weights all classes alike.

    Returns:
      `train_step` with all keyword arguments bound, a function (state, batch) -> (state, metrics) that each device runs
      under the mapped axis `AXIS_NAME` (`data_parallel` does this); and the optimizer for `create_state`.

    Raises:
      InputError: if batch_size, micro_batch, bn_group and `devices` do not fit together, or an optimizer setting is
        wrong.
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
        ema_decay=config.get("ema_decay", 0.0),
    )
    return step, optimizer


@dataclass(frozen=True)
class _Run:
    """The parts of a run that stay the same from step to step."""

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
        """Runs the steps after `start` and returns the scores of the last evaluation."""
        last, scores = self.config["num_steps"], {}
        if start and _due(start, self.config["eval_every"], last):
            scores, state = self._evaluated(state, start)
        for step in range(start + 1, last + 1):
            self.profiler.before(step)
            with jax.transfer_guard("disallow"):  # only the batches may be copied to the devices
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
        with self.monitor.paused():  # reads the metrics of all steps: a state that diverged is never saved
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
        """Returns the scores of a saved step, and the state whose learning rate follows them.

        Evaluates the step, unless its checkpoint already has scores.
        """
        scores = self.manager.metrics(step)
        if scores is None:
            with self.monitor.paused():
                with self.interruption.at_once(step):
                    evaluation = self.evaluate(first_replica(state.evaluated))
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
    """Returns the state of the newest checkpoint and moves `batches` there; returns `state` if there is none."""
    restored = restore_newest(manager, state.variables, _optimizer_item(state))
    if restored is None:
        return state
    step, variables, optimizer, position = restored
    batches.set_state(position)
    averages = optimizer.get(AVERAGES)
    return TrainState(state.step + step, variables, optimizer["momentum"], optimizer["plateau"], averages)


def _optimizer_item(state: TrainState) -> dict[str, Any]:
    averages = {} if state.averages is None else {AVERAGES: state.averages}
    return {"momentum": state.opt_state, "plateau": state.plateau, **averages}


def _due(step: int, every: int, last: int) -> bool:
    """Returns whether an action is due after `step`: at every multiple of `every` and at the end; never if it is 0."""
    return every > 0 and (step % every == 0 or step == last)
