"""Sends metrics and pictures of a run to an experiment tracker: Weights & Biases, MLflow or trackio.

A tracker's package is imported only if the run uses it. The run that a tracker shows continues when training resumes:
its identifier is kept in the run's folder. A tracker never stops a training: after a failure it is left out.
"""

import contextlib
import contextvars
import json
import queue
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from deconvnet_jax.errors import InputError, did_you_mean, one_line
from deconvnet_jax.files import in_bucket, write_text
from deconvnet_jax.training.interruption import Preempted

TRACKER_FILE = "tracker.json"  # in the run's folder: {"TRACKER/PROJECT": identifier of the run in the tracker}
PATIENCE = 60.0  # seconds that the end of a run waits for a tracker
FINISHED, INTERRUPTED, FAILED = "finished", "interrupted", "failed"
_NO_MLFLOW_NAME = re.compile(r"[^\w\-. /]")


class Start(NamedTuple):
    """What a tracker needs to start a run, or to continue one.

    Attributes:
      project: the project, in MLflow the experiment, that holds the run.
      name: the name of the run.
      run: the identifier of the run to continue; None for a new run.
      config: the experiment's settings, nested mappings of JSON values.
      settings: the same, flat.
      folder: the run's folder.
    """

    project: str
    name: str
    run: str | None
    config: dict[str, Any]
    settings: dict[str, Any]
    folder: Path


class Backend(Protocol):
    """Run in a tracker; `run` is its identifier. Its methods may raise any exception."""

    run: str

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends values.

        Args:
          step: the step that they belong to.
          scalars: {name: value}, finite.
        """
        ...

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures.

        Args:
          step: the step that they belong to.
          images: {name: uint8 RGB [H, W, 3]}.
        """
        ...

    def finish(self, status: str) -> None:
        """Ends the run as `FINISHED`, `INTERRUPTED` or `FAILED`, and waits until everything is sent."""
        ...


class _Wandb:
    """Run in Weights & Biases; files go to WORKDIR/wandb, or to the working folder if WORKDIR is in a bucket."""

    def __init__(self, start: Start):
        """Starts or continues a run."""
        self._wandb: Any = import_module("wandb")
        self._run = self._wandb.init(
            project=start.project,
            name=start.name,
            id=start.run or uuid.uuid4().hex[:8],
            resume="allow",
            config=start.config,
            allow_val_change=True,
            dir=None if in_bucket(start.folder) else str(start.folder),
        )
        # A resumed run may repeat steps. W&B ignores values of a repeated step unless the step is itself a value.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.run: str = self._run.id

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends values."""
        self._run.log({"step": step, **scalars})

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures."""
        self._run.log({"step": step, **{name: self._wandb.Image(image) for name, image in images.items()}})

    def finish(self, status: str) -> None:
        """Ends the run, and waits until everything is sent."""
        if status == INTERRUPTED:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if status == FINISHED else 1)


class _Mlflow:
    """Run in MLflow, at the address in MLFLOW_TRACKING_URI or in MLflow's files in the working folder."""

    def __init__(self, start: Start):
        """Starts or continues a run."""
        mlflow: Any = import_module("mlflow")
        self._client = mlflow.MlflowClient()
        if start.run is not None:
            self.run = start.run
            self._client.update_run(self.run, status="RUNNING")
        else:
            found = self._client.get_experiment_by_name(start.project)
            experiment = found.experiment_id if found else self._client.create_experiment(start.project)
            self.run = self._client.create_run(experiment, run_name=start.name).info.run_id
            # Parameters of a run can never change, so the first start counts.
            for key, value in start.settings.items():
                self._client.log_param(self.run, key, value)
        self._client.log_dict(self.run, start.config, "config.json")

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends values."""
        for name, value in scalars.items():
            self._client.log_metric(self.run, _NO_MLFLOW_NAME.sub("_", name), value, step=step)

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures."""
        for name, image in images.items():
            self._client.log_image(self.run, image, key=_NO_MLFLOW_NAME.sub("_", name), step=step, synchronous=True)

    def finish(self, status: str) -> None:
        """Ends the run."""
        states = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}
        self._client.set_terminated(self.run, states[status])


class _Trackio:
    """Run in trackio, which knows runs by their names; its messages go to stderr."""

    def __init__(self, start: Start):
        """Starts or continues a run."""
        self._trackio: Any = import_module("trackio")
        self.run = start.run or f"{start.name}-{uuid.uuid4().hex[:8]}"
        settings = {"name": self.run, "config": start.settings, "resume": "allow", "embed": False}
        with contextlib.redirect_stdout(sys.stderr):
            # In a separate context, because trackio ends the run of the program's context again when the program exits.
            self._run = contextvars.Context().run(self._trackio.init, project=start.project, **settings)

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends values."""
        self._run.log(dict(scalars), step=step)

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures."""
        self._run.log({name: self._trackio.Image(image) for name, image in images.items()}, step=step)

    def finish(self, status: str) -> None:
        """Ends the run, and waits until everything is sent; trackio keeps no status."""
        del status
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


class TrackerKind(NamedTuple):
    """A tracker that `config.tracker` can name.

    Attributes:
      title: what messages call it.
      package: the package to import.
      install: the package to install.
      connect: starts or continues a run.
    """

    title: str
    package: str
    install: str
    connect: Callable[[Start], Backend]


TRACKERS = {
    "wandb": TrackerKind("Weights & Biases", "wandb", "wandb", _Wandb),
    "mlflow": TrackerKind("MLflow", "mlflow", "mlflow", _Mlflow),
    "trackio": TrackerKind("trackio", "trackio", "trackio", _Trackio),
}
NO_TRACKER = "none"


def check_tracker(name: str) -> None:
    """Checks that the package of a tracker is installed, without importing it.

    Args:
      name: a key of `TRACKERS`, or `NO_TRACKER`.

    Raises:
      InputError: if it is not installed, or there is no such tracker.
    """
    if name == NO_TRACKER:
        return
    if name not in TRACKERS:
        known = (NO_TRACKER, *TRACKERS)
        raise InputError(
            f"config.tracker={name}: unknown; expected one of {', '.join(known)}{did_you_mean(str(name), known)}"
        )
    kind = TRACKERS[name]
    spec = find_spec(kind.package)
    if spec is None or spec.origin is None:  # Without an origin it is a folder of that name, such as W&B's own.
        raise InputError(
            f"config.tracker={name}: the package {kind.install} is not installed; pip install {kind.install}, or give "
            f"--config.tracker={NO_TRACKER}"
        )


class Tracker:
    """Context manager that sends what a run measures to a tracker, in a thread: the training does not wait for it.

    After a failure it prints one warning and sends nothing more but the end of the run. Only the first process sends
    anything.
    """

    def __init__(self, name: str, project: str, folder: Path, config: dict[str, Any], settings: dict[str, Any]):
        """Starts a run in the tracker, or continues the one that the folder names.

        Args:
          name: a key of `TRACKERS`, or `NO_TRACKER`: nothing is ever sent.
          project: the project, in MLflow the experiment, that holds the run.
          folder: the run's folder, which exists.
          config: the experiment's settings, nested mappings of JSON values.
          settings: the same, flat (`flatten`).
        """
        self._title, self._backend, self._failed = name, None, False
        # The last item is the status with which the run ends.
        self._waiting: queue.SimpleQueue[Callable[[Backend], None] | str] = queue.SimpleQueue()
        if name == NO_TRACKER or jax.process_index() > 0:
            return
        self._title, key, known = TRACKERS[name].title, f"{name}/{project}", _known_runs(folder)
        run_name = f"{folder.parent.name}-{folder.name}" if folder.name == "stage1" else folder.name
        start = Start(project, run_name, known.get(key), config, settings, folder)
        with self._left_out_after_failure():
            self._backend = TRACKERS[name].connect(start)
        if self._backend:
            write_text(folder / TRACKER_FILE, json.dumps({**known, key: self._backend.run}, indent=2) + "\n")
            self._thread = threading.Thread(target=self._send, args=[self._backend], daemon=True, name=name)
            self._thread.start()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del error, trace
        if not self._backend:
            return
        stopped = kind is not None and not issubclass(kind, Exception)
        status = FINISHED if kind is None else INTERRUPTED if stopped else FAILED
        self._waiting.put(status)
        if kind is None or issubclass(kind, Exception | Preempted):  # Not after a second Ctrl-C: stop at once.
            self._thread.join(PATIENCE)
            if self._thread.is_alive() and not self._failed:
                self._warn(f"has not answered for {PATIENCE:.0f} seconds; what is not sent yet is lost")

    def log_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Sends values.

        Args:
          step: the step that the values belong to; steps that repeat are sent again.
          scalars: {name: value}, finite.
        """
        if self._backend:
            self._waiting.put(lambda backend: backend.log_scalars(step, scalars))

    def log_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Sends pictures.

        Args:
          step: the step that the pictures belong to.
          images: {name: uint8 RGB [H, W, 3]}, of any size.
        """
        if self._backend:
            self._waiting.put(lambda backend: backend.log_images(step, images))

    def _send(self, backend: Backend) -> None:
        """Sends what is waiting, in its order, and ends the run, also after a failure; runs in a thread."""
        while not isinstance(call := self._waiting.get(), str):
            if not self._failed:
                with self._left_out_after_failure():
                    call(backend)
        with self._left_out_after_failure():
            backend.finish(call)

    @contextlib.contextmanager
    def _left_out_after_failure(self) -> Iterator[None]:
        """Returns a context in which any error leaves the tracker out, with one warning."""
        try:
            yield
        except Exception as error:  # Each tracker and its network libraries raise other exceptions.
            if not self._failed:
                self._warn(f"failed ({one_line(error)}); the run continues without it")
            self._failed = True

    def _warn(self, what: str) -> None:
        print(f"warning: {self._title} {what}", file=sys.stderr)


def _known_runs(folder: Path) -> dict[str, str]:
    """Returns the identifiers of the runs that show this folder; none if there is no file or it is damaged."""
    path = folder / TRACKER_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): str(run) for key, run in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        print(f"warning: {path} cannot be read ({one_line(error)}); the tracker shows a new run", file=sys.stderr)
        return {}
