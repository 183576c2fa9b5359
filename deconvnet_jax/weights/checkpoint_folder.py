"""Folders of checkpoints as Orbax writes them, and one step in them, read item by item and verified."""

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

from deconvnet_jax.errors import InputError, one_line
from deconvnet_jax.files import as_path, in_bucket, not_written, write_text
from deconvnet_jax.weights.integrity import check_arrays, check_json, check_record, json_digest

if TYPE_CHECKING:
    from etils import epath

Tree = TypeVar("Tree")

BEST_METRIC = "mean_iou"
RECORD = "integrity"  # the item with the integrity record
_TENSORSTORE = ("tensorstore/", "OCDBT", "os_error_code=")  # in what it says of errors
_WRITTEN_LAST = "commit_success.txt"
_METRICS = "metrics"  # folder in a step, and the file in it
_MISREAD = set("[]\\")  # Orbax looks for its files by patterns, TensorStore takes a backslash for a slash


class Checkpoints(ocp.CheckpointManager):
    """Orbax's manager of a folder that is written to; scores of steps are read and written by this project.

    Attributes:
      folder: the folder as the user knows it, absolute.
      checked: the newest step whose arrays are known to be there.
    """

    def __init__(self, folder: Path, path: "epath.Path"):
        self.folder = folder
        self.checked = max(finished_steps(folder), default=None)
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[BEST_METRIC], n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(2), best]),
            best_fn=lambda metrics: metrics[BEST_METRIC],
            cleanup_tmp_directories=True,  # what a killed run was writing
        )
        super().__init__(path, options=options)

    def metrics(self, step: int) -> dict[str, float] | None:
        """Returns the scores of a step; None without any, or if they are damaged."""
        return read_metrics(self.folder / str(step))


@contextlib.contextmanager
def open_checkpoints(directory: str | Path) -> Iterator[Checkpoints]:
    """Yields a manager that writes to `directory`, keeping the last two steps and the one with the best `mean_iou`.

    Raises:
      InputError: if the folder cannot be written, or a step could not be.
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
            with contextlib.suppress(Exception):  # the first error is the cause
                manager.close()
            raise
        writing(manager, manager.close)


def writing(manager: Checkpoints, write: Callable[[], Any]) -> None:
    """Calls a function that writes a step or waits for one.

    Raises:
      InputError: if the step could not be written.
    """
    try:
        write()
    except Exception as error:  # TensorStore reports a full disk as ValueError, others as what they like
        kept = finished_steps(manager.folder)
        raise InputError(
            f"a checkpoint could not be written to {manager.folder} ({_cause(error)}); "
            f"{f'the one of step {max(kept)} is intact' if kept else 'there is no earlier one'}: "
            "make room and give the same command again"
        ) from error


def finish_saving(manager: Checkpoints) -> None:
    """Waits until the last step is on the disk, and looks whether its arrays are: no error is no proof of it.

    Raises:
      InputError: if it could not be written.
    """
    writing(manager, manager.wait_until_finished)
    step = max(finished_steps(manager.folder), default=None)
    if step in (None, manager.checked) or jax.process_index() > 0:
        return
    try:
        with _readable_path(manager.folder / str(step) / "variables") as path:
            _stored_shapes(path)
    except Exception as error:  # whatever Orbax and TensorStore make of files that are not there
        raise InputError(
            f"the checkpoint of step {step} in {manager.folder} was written without its arrays ({one_line(error)}); "
            "give a folder on another disk or with a plain name"
        ) from error
    manager.checked = step


def _cause(error: Exception) -> str:
    said = str(error)
    if "No space left" in said or "RESOURCE_EXHAUSTED" in said:
        return "the disk is full"
    return "the disk is full, or files may not be as large" if "File too large" in said else one_line(error)


def finished_steps(directory: Path) -> list[int]:
    """Returns the steps in a folder of checkpoints, ascending.

    Half-written ones have other names, and in a bucket, which has no renames, no object that Orbax writes last.
    """
    if not directory.is_dir():
        return []
    found = [c for c in directory.iterdir() if c.name.isdecimal() and c.name.isascii()]
    last = in_bucket(directory)
    return sorted(int(c.name) for c in found if ((c / _WRITTEN_LAST).exists() if last else c.is_dir()))


class StoredStep:
    """One finished step, whose items are compared with its integrity record while they are read.

    Methods raise whatever Orbax, TensorStore and JSON make of damaged files, and ValueError for other values than
    those that were written.
    """

    def __init__(self, folder: Path):
        """Reads the record. Checkpoints of older versions have none: then a note is printed."""
        self._folder = folder
        self._record = None
        if (folder / RECORD).exists():
            self._record = _read_json(folder / RECORD)
            check_record(self._record)
        else:
            _note_older(folder)

    def json(self, item: str) -> Any:
        """Returns a JSON item."""
        value = _read_json(self._folder / item)
        if self._record is not None:
            check_json(self._record, item, value)
        return value

    def arrays(self, item: str, shapes: Tree) -> Tree:
        """Returns an item of arrays, on this process's first device.

        Args:
          item: its name.
          shapes: what is expected.
        """
        _quiet()
        with _readable_path(self._folder / item) as path:
            # Orbax would find other shapes, too, but from many reads at once, whose other errors it leaves to the
            # garbage collector.
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


@functools.cache  # once per folder
def _note_older(folder: Path) -> None:
    if jax.process_index() == 0:
        print(f"note: {folder} was written by an older version; damage may go unnoticed", file=sys.stderr)


def _read_json(folder: Path) -> Any:
    handler = ocp.JsonCheckpointHandler()
    try:
        return handler.restore(_orbax_path(folder))
    finally:
        handler.close()


def _stored_shapes(path: "epath.Path") -> dict[str, tuple[int, ...]]:
    """Returns the shapes of an item's arrays by name, from their own headers; reads no values."""
    stored = ocp.StandardCheckpointHandler().metadata(path)
    return {name: leaf.shape for name, leaf in _named_leaves(getattr(stored, "tree", stored))}


def _named_leaves(tree: object) -> list[tuple[str, Any]]:
    """Returns leaves with names that are the same for a named tuple and for the dict that Orbax makes of it."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def on_this_device(tree: Tree) -> Tree:
    """Returns shapes and dtypes to restore onto the first local device, whatever devices wrote them."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def read_metrics(step: Path) -> dict[str, float] | None:
    """Returns the scores in the folder of a step; None without any, or if they are damaged, with a warning."""
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


@functools.cache  # once per file
def _warn_of_metrics(path: Path, damage: str) -> None:
    if jax.process_index() == 0:
        step = path.parent.parent.name
        print(f"warning: {path} cannot be read ({damage}); step {step} counts as not evaluated", file=sys.stderr)


def write_metrics(step: Path, scores: dict[str, float]) -> None:
    """Writes the scores of a step into its folder, in place of others or of damage.

    Raises:
      InputError: if they cannot be written.
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
    return cast("epath.Path", path)  # Orbax's annotation; it takes all paths


@contextlib.contextmanager
def _readable_path(path: Path) -> Iterator["epath.Path"]:
    """Yields an absolute path that Orbax and TensorStore can read: a link to it, if its name has other characters."""
    path = path.absolute()
    try:
        os.fspath(path).encode()
        plain = not _MISREAD & set(os.fspath(path))
    except UnicodeEncodeError:  # bytes that are no UTF-8
        plain = False
    if plain:
        yield _orbax_path(path)
        return
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        link = Path(folder, "link")
        link.symlink_to(path, target_is_directory=True)
        yield _orbax_path(link)


class _OrbaxFilter(logging.Filter):
    """Drops what Orbax logs, and what asyncio logs of its and TensorStore's tasks: errors reach us as exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        paths, error = [record.pathname], record.exc_info[1] if record.exc_info else None
        if error is not None:
            paths += [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        of_orbax = any(f"{os.sep}orbax{os.sep}" in path for path in paths)
        return not of_orbax and not any(mark in str(error) for mark in _TENSORSTORE)


@functools.cache  # once per process: Orbax's and TensorStore's threads may outlast the error that we report
def _quiet() -> None:
    """Lets threads of Orbax and TensorStore print nothing."""
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_OrbaxFilter())
    warnings.filterwarnings("ignore", "coroutine '[a-z_]*serialize.* was never awaited", RuntimeWarning)
    before = sys.unraisablehook

    def hook(late: Any) -> None:
        if not (late.exc_type is RuntimeError and str(late.exc_value) == "Event loop is closed"):
            before(late)

    sys.unraisablehook = hook
