"""Writes folders of checkpoints with Orbax, and reads one step of such a folder with verification."""

import contextlib
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from deconvnet_jax.checkpoint_places import finished_steps
from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import as_path, not_written, write_text
from deconvnet_jax.weights.integrity import check_arrays, check_json, check_record, json_digest

if TYPE_CHECKING:
    from etils import epath

Tree = TypeVar("Tree")

BEST_METRIC = "mean_iou"
RECORD = "integrity"  # name of the item with the integrity record
AVERAGES = "averages"  # name of the item with the averages of the variables, of runs that keep them
_TENSORSTORE = ("tensorstore/", "OCDBT", "os_error_code=")  # texts by which an error of TensorStore is recognised
_METRICS = "metrics"  # name of the folder with a step's scores, and of the file inside
_MISREAD = set("[]\\")  # Orbax takes brackets for patterns; TensorStore takes a backslash for a slash.


class Checkpoints(ocp.CheckpointManager):
    """Orbax's manager of a folder of checkpoints, with this project's own files for the scores of steps.

    Attributes:
      folder: absolute path of the folder, as the user gave it.
      checked: the newest step whose arrays are known to be complete; None if there is no step.
    """

    def __init__(self, folder: Path, path: "epath.Path"):
        """Opens an existing folder.

        Args:
          folder: absolute path of the folder, for error messages and for reading scores.
          path: the same folder under a name that Orbax can read.
        """
        self.folder = folder
        self.checked = max(finished_steps(folder), default=None)
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best]),
            best_fn=lambda metrics: metrics[BEST_METRIC],
            cleanup_tmp_directories=True,  # removes the unfinished step of a killed run
        )
        super().__init__(path, options=options)

    def metrics(self, step: int) -> dict[str, float] | None:
        """Returns the scores of a step; None if it has none, or if they are damaged, which prints a warning."""
        return read_metrics(self.folder / str(step))


@contextlib.contextmanager
def open_checkpoints(directory: str | Path) -> Iterator[Checkpoints]:
    """Yields a manager for writing checkpoints, and waits at the end of the block until all are written.

    The manager keeps the last two steps and the step with the best `mean_iou`, and deletes the others.

    Args:
      directory: the folder of checkpoints, which is made if it does not exist.

    Raises:
      InputError: if the folder or a step cannot be written.
    """
    folder = as_path(directory).absolute()
    _quiet()
    with _readable_path(folder) as path:
        with not_written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            manager = Checkpoints(folder, path)
        try:
            yield manager
        except BaseException:
            with contextlib.suppress(Exception):  # The error that is raised already is the cause of this one.
                manager.close()
            raise
        writing(manager, manager.close)


def writing(manager: Checkpoints, write: Callable[[], Any]) -> None:
    """Calls a function that writes a step or waits for it, and turns its errors into one line.

    Args:
      manager: the manager that writes the step.
      write: the function, called without arguments.

    Raises:
      InputError: if `write` raises an exception.
    """
    try:
        write()
    except Exception as error:  # TensorStore reports a full disk as ValueError; Orbax raises other types.
        kept = finished_steps(manager.folder)
        raise InputError(
            f"a checkpoint could not be written to {manager.folder} ({_cause(error)}); "
            f"{f'the checkpoint of step {max(kept)} is intact' if kept else 'there is no earlier checkpoint'}: "
            "free disk space and repeat the command"
        ) from error


def finish_saving(manager: Checkpoints) -> None:
    """Waits until the last step is on the disk, and checks that its arrays exist.

    The check is needed because Orbax can lose the arrays without an error. In a program of several processes, all must
    call this function; the first one checks.

    Raises:
      InputError: if the step could not be written.
    """
    writing(manager, manager.wait_until_finished)
    step = max(finished_steps(manager.folder), default=None)
    if step in (None, manager.checked) or jax.process_index() > 0:
        return
    try:
        with _readable_path(manager.folder / str(step) / "variables") as path:
            _stored_shapes(path)
    except Exception as error:  # Orbax and TensorStore raise many types of exceptions for missing files.
        raise InputError(
            f"the checkpoint of step {step} in {manager.folder} was written without its arrays ({one_line(error)}); "
            "use a folder on another disk, or one whose name has only letters and digits"
        ) from error
    manager.checked = step


def _cause(error: Exception) -> str:
    """Returns why a checkpoint could not be written, for the error message."""
    said = str(error)
    if "No space left" in said or "RESOURCE_EXHAUSTED" in said:
        return "the disk is full"
    return "the disk is full, or a limit on file sizes is reached" if "File too large" in said else one_line(error)


class StoredStep:
    """Reader of one finished step that compares every item with the step's integrity record.

    For damaged files the methods raise whatever Orbax, TensorStore and JSON raise. For values that differ from those
    that were written they raise ValueError.
    """

    def __init__(self, folder: Path):
        """Reads the integrity record.

        Checkpoints of older versions have no record. For these a note is printed, and nothing is compared.

        Args:
          folder: the folder of the step.
        """
        self._folder = folder
        self._record = None
        if (folder / RECORD).exists():
            self._record = _read_json(folder / RECORD)
            check_record(self._record)
        else:
            _note_older(folder)

    def has(self, item: str) -> bool:
        """Returns whether the step was written with an item of arrays of this name."""
        return self._record is not None and item in self._record["arrays"]

    def json(self, item: str) -> Any:
        """Returns the JSON item of this name, after comparing it with the record."""
        value = _read_json(self._folder / item)
        if self._record is not None:
            check_json(self._record, item, value)
        return value

    def arrays(self, item: str, shapes: Tree) -> Tree:
        """Returns an item of arrays, after comparing it with the record.

        Args:
          item: the item's name.
          shapes: a tree of arrays or `jax.ShapeDtypeStruct` with the expected shapes and dtypes.

        Returns:
          A tree like `shapes`, with arrays on this process's first device.
        """
        _quiet()
        with _readable_path(self._folder / item) as path:
            # Orbax would notice wrong shapes too. But it would find them in many concurrent reads, and would leave
            # all errors but one to the garbage collector, which prints them.
            stored = _stored_shapes(path)
            for name, leaf in _named_leaves(shapes):
                if stored.get(name) != leaf.shape:
                    raise ValueError(
                        f"'{name}' has the shape {stored.get(name)}, the config's network needs {leaf.shape}"
                    )
            handler = ocp.StandardCheckpointHandler()
            tree = handler.restore(path, args=ocp.args.StandardRestore(on_this_device(shapes)))
            handler.close()
        if self._record is not None:
            check_arrays(self._record, item, tree)
        return tree


@functools.cache  # The note appears once per folder.
def _note_older(folder: Path) -> None:
    if jax.process_index() == 0:
        print(
            f"note: {folder} was written by an older version without checksums; damage may go unnoticed",
            file=sys.stderr,
        )


def _read_json(folder: Path) -> Any:
    """Returns a JSON item as Orbax wrote it into `folder`."""
    handler = ocp.JsonCheckpointHandler()
    try:
        return handler.restore(_orbax_path(folder))
    finally:
        handler.close()


def _stored_shapes(path: "epath.Path") -> dict[str, tuple[int, ...]]:
    """Returns {name: shape} of an item's arrays, from the headers of the arrays; reads no values."""
    stored = ocp.StandardCheckpointHandler().metadata(path)
    return {name: leaf.shape for name, leaf in _named_leaves(getattr(stored, "tree", stored))}


def _named_leaves(tree: object) -> list[tuple[str, Any]]:
    """Returns (name, leaf) pairs; a named tuple and the dictionary that Orbax stores for it get the same names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def on_this_device(tree: Tree) -> Tree:
    """Returns shapes and dtypes for restoring onto the first local device, regardless of which devices wrote them.

    Args:
      tree: arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The same tree with a `jax.ShapeDtypeStruct` in place of each array.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def read_metrics(step: Path) -> dict[str, float] | None:
    """Returns the scores in the folder of a step.

    Returns:
      {name: score}; None if the step has none, or if they are damaged, in which case a warning is printed once.
    """
    path = step / _METRICS / _METRICS
    try:
        if not (step / _METRICS).exists() or ((step / _METRICS).is_dir() and not path.exists()):
            return None
        values = json.loads(path.read_bytes())
        digest = values.pop("sha256", None)
        if digest not in (None, json_digest(values)):
            raise ValueError("the values are not those that were written")
        if not isinstance(values[BEST_METRIC], float | int):
            raise ValueError(f"{BEST_METRIC} is no number")
        return {name: float(value) for name, value in values.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _warn_of_metrics(path, one_line(error))
        return None


@functools.cache  # The warning appears once per file.
def _warn_of_metrics(path: Path, damage: str) -> None:
    if jax.process_index() == 0:
        step = path.parent.parent.name
        print(f"warning: {path} cannot be read ({damage}); step {step} counts as not evaluated", file=sys.stderr)


def write_metrics(step: Path, scores: dict[str, float]) -> None:
    """Writes the scores of a step, in place of earlier or damaged ones.

    Args:
      step: the folder of the step.
      scores: {name: score}; must contain "mean_iou".

    Raises:
      InputError: if the file cannot be written.
    """
    path = step / _METRICS / _METRICS
    with not_written(path):
        if path.exists() and not path.is_file():
            shutil.rmtree(path)
        if path.parent.exists() and not path.parent.is_dir():
            path.parent.unlink()
        path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps({**scores, "sha256": json_digest(scores)}))


def _orbax_path(path: Path) -> "epath.Path":
    return cast("epath.Path", path)  # Orbax accepts any path, but its annotations name this type.


@contextlib.contextmanager
def _readable_path(path: Path) -> Iterator["epath.Path"]:
    """Yields a path that Orbax and TensorStore can read: the absolute path, or a temporary link to it.

    The link is needed if the path has characters that they misread, or bytes that are not UTF-8.
    """
    path = path.absolute()
    try:
        os.fspath(path).encode()
        plain = not _MISREAD & set(os.fspath(path))
    except UnicodeEncodeError:  # The path has bytes that are not UTF-8.
        plain = False
    if plain:
        yield _orbax_path(path)
        return
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        link = Path(folder, "link")
        link.symlink_to(path, target_is_directory=True)
        yield _orbax_path(link)


class _OrbaxFilter(logging.Filter):
    """Filter that drops log records of Orbax, and asyncio's records about tasks of Orbax and TensorStore.

    Nothing is lost: the same errors are raised as exceptions.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether to keep a record."""
        paths, error = [record.pathname], record.exc_info[1] if record.exc_info else None
        if error is not None:
            paths += [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        of_orbax = any(f"{os.sep}orbax{os.sep}" in path for path in paths)
        return not of_orbax and not any(mark in str(error) for mark in _TENSORSTORE)


# The filters are added once per process and stay, because threads of Orbax and TensorStore may outlive an error.
@functools.cache
def _quiet() -> None:
    """Keeps threads of Orbax and TensorStore from printing errors that are raised as exceptions anyway."""
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_OrbaxFilter())
    warnings.filterwarnings("ignore", "coroutine '[a-z_]*serialize.* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(late: Any) -> None:
        if not (late.exc_type is RuntimeError and str(late.exc_value) == "Event loop is closed"):
            before(late)

    sys.unraisablehook = hook
