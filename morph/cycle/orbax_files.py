"""Trees of arrays on disk, as Orbax writes them; its errors become ours, and are said once."""

from __future__ import annotations

import glob
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from morph.errors import WorkdirError

# Process 0 reads and writes by itself; Orbax would have all processes take part.
_ALONE = ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
)
_NOISE = ("_SignalingThread", "Skipping merge of OCDBT")


def write_arrays(path: Path, tree: Any) -> None:
    """Writes a tree of arrays to a folder; replaces what is there.

    Raises:
        WorkdirError: if it cannot be written.
    """
    path = path.absolute()
    name = glob.escape(path.name)
    for left in path.parent.glob(f"{name}.orbax-checkpoint-tmp*"):  # by one that failed
        shutil.rmtree(left, ignore_errors=True)
    # Orbax looks for the parts of one database by a pattern, of which the path is part: where that
    # has brackets it finds none, and what it leaves cannot be read.
    one_database = not glob.has_magic(str(path))
    with _said_once("write", path), _checkpointer(one_database) as checkpointer:
        checkpointer.save(path, jax.tree.map(np.array, tree), force=True)


def read_arrays(path: Path, like: Any = None) -> Any:
    """Reads what `write_arrays` wrote, in the structure of `like`, if that is given.

    Raises:
        WorkdirError: if it cannot be read, or is another structure.
    """
    plain = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
    with _said_once("read", path), _checkpointer() as checkpointer:
        return checkpointer.restore(path.absolute(), plain)


def write_shards(path: Path, arrays: Mapping[str, jax.Array]) -> None:
    """Writes arrays of which processes hold parts to a new folder; in all processes.

    Raises:
        WorkdirError: if they cannot be written.
    """
    with _said_once("write", path), _shared(path) as checkpointer:
        checkpointer.save(path.absolute(), dict(arrays))


def read_shards(path: Path, like: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """Reads what `write_shards` wrote, where the shardings of `like` say; in all processes.

    Raises:
        WorkdirError: if it cannot be read, or there are others.
    """
    with _said_once("read", path), _shared(path) as checkpointer:
        found: dict[str, jax.Array] = checkpointer.restore(path.absolute(), dict(like))
        return found


def _shared(path: Path) -> ocp.Checkpointer:
    one_database = not glob.has_magic(str(path.absolute()))  # see `write_arrays`
    return ocp.Checkpointer(ocp.StandardCheckpointHandler(use_ocdbt=one_database))


def _checkpointer(one_database: bool = True) -> ocp.Checkpointer:
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=_ALONE, use_ocdbt=one_database)
    return ocp.Checkpointer(handler, multiprocessing_options=_ALONE)


@contextmanager
def _said_once(verb: str, path: Path) -> Iterator[None]:
    """An error of Orbax as one of ours.

    Its threads also log it, and those of TensorStore print that the loop is closed in which nobody
    waits for them any more, up to some time later. Both are left out, and nothing else is.
    """
    absl, hook = logging.getLogger("absl"), sys.unraisablehook

    def logged(record: logging.LogRecord) -> bool:
        return not any(noise in str(record.msg) for noise in _NOISE)

    def unraisable(told: sys.UnraisableHookArgs) -> None:
        if str(told.exc_value) != "Event loop is closed":
            hook(told)

    absl.addFilter(logged)
    sys.unraisablehook = unraisable
    try:
        yield
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:  # any of them
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        line, *_ = line.split(" [tensorstore_spec=")  # TensorStore may say at length what it wrote
        line = line if len(line) < 200 else f"...{line[-200:]}"  # the cause comes last
        raise WorkdirError(f"cannot {verb} the arrays in {path}: {line}") from error
    else:
        sys.unraisablehook = hook
    finally:
        absl.removeFilter(logged)
