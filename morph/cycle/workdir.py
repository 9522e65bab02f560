"""The folder of a run: who owns it, what is stored there, and the signals that end a run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from morph.cycle.checkpoint import _ALONE
from morph.errors import WorkdirError
from morph.files import write_text
from morph.network import Variables
from morph.training.mesh import is_first
from regularizers import json_files
from regularizers.checks import PATH, checked
from regularizers.json_files import JsonError

try:
    import fcntl
except ImportError:  # not a POSIX system: runs there are not kept apart
    fcntl = None  # type: ignore[assignment]


def claim_workdir(
    workdir: Path, config: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    """Makes `workdir` belong to a run of `config`; True if it already did.

    Args:
        workdir: to claim.
        config: everything that makes the run what it is.
        defaults: of settings that a version before may not have had, and so did not write.

    Raises:
        WorkdirError: if it cannot be written, or holds a run of another configuration; the message
            lists what differs.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_text(path, json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
            return False
        there = json_files.read_object(path)
    except (OSError, JsonError) as error:
        raise WorkdirError(f"cannot use {workdir} as working directory: {error}") from error
    there = {**{name: value for name, value in defaults.items() if name in config}, **there}
    differences = [
        f"{key}: {there.get(key)!r} there, "
        + (f"{config[key]!r} asked for" if key in config else "nothing that this version knows")
        for key in sorted({*there, *config})
        if key not in config or there.get(key) != config[key]
    ]
    if differences:
        raise WorkdirError(
            f"{workdir} holds a run of another configuration ({'; '.join(differences)}). "
            "Choose another --workdir, or repeat the command that started it to resume."
        )
    return True


def save_variables(path: Path, variables: Variables) -> None:
    """Writes variables as one Orbax checkpoint; replaces what is there, whole. Process 0 only."""
    if not is_first():
        return
    draft, before = (path.absolute().with_name(path.name + end) for end in (".part", ".before"))
    with ocp.StandardCheckpointer(multiprocessing_options=_ALONE) as checkpointer:
        checkpointer.save(draft, jax.tree.map(np.array, variables), force=True)
    if path.exists():
        shutil.rmtree(before, ignore_errors=True)
        path.rename(before)
    draft.rename(path)
    shutil.rmtree(before, ignore_errors=True)


@checked(path=PATH)
def load_variables(path: str | Path, like: Any = None) -> Variables:
    """Reads what `save_variables` wrote; with `like` (abstract variables) checked against it."""
    plain = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), like)
    with ocp.StandardCheckpointer(multiprocessing_options=_ALONE) as checkpointer:
        variables: Variables = checkpointer.restore(Path(path).absolute(), plain)
    return jax.tree.map(jnp.asarray, variables)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns the first SIGINT or SIGTERM into a wish to stop; a second SIGINT stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        del number, frame
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before: dict[signal.Signals, Any] = {}
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            before[name] = signal.signal(name, ask)
    except ValueError:  # not in the main thread: signals are somebody else's business
        before = {}
    try:
        yield lambda: asked
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps `directory` for this process, until the end of the block or of the process.

    The lock is the operating system's, on the file `lock` (which says who has it): a process that
    was killed leaves none behind.

    Raises:
        WorkdirError: if the directory cannot be made or written, or another process has it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise WorkdirError(f"cannot use {directory} as working directory: {error}") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise WorkdirError(
                    f"another run is using {directory}: {file.read().strip() or 'just started'}. "
                    "Wait for it, stop it, or choose another --workdir."
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
