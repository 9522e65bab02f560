"""The folder of a run: who owns it, what is stored there, and the signals that end a run."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any

import jax

from morph.cycle.config import renewed
from morph.cycle.orbax_files import read_arrays, write_arrays
from morph.errors import WorkdirError
from morph.files import replace, write_text
from morph.network import Variables
from morph.training.mesh import is_first
from regularizers import json_files
from regularizers.checks import PATH, checked
from regularizers.json_files import JsonError
from regularizers.messages import reason

try:
    import fcntl
except ImportError:  # not a POSIX system: runs there are not kept apart
    fcntl = None  # type: ignore[assignment]


# JAX's own switches that change results, and what they are where nothing is said.
SWITCHES: Mapping[str, Any] = MappingProxyType(
    {
        "jax_default_matmul_precision": None,
        "jax_default_prng_impl": "threefry2x32",
        "jax_enable_x64": False,
        "jax_random_seed_offset": 0,
        "jax_threefry_partitionable": True,
    }
)
_LEFT = ("checkpoints/[0-9]*", "seed*")  # what runs, sweeps and studies leave


def switches() -> dict[str, Any]:
    """What JAX's switches are, of those that change results."""
    return {name: getattr(jax.config, name) for name in SWITCHES}


def claim_workdir(
    workdir: Path, config: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    """Makes `workdir` belong to a run of `config`; True if it already did.

    JAX's switches that change results belong to it, too, and are written where they are set.

    Args:
        workdir: to claim.
        config: everything that makes the run what it is.
        defaults: of settings that a version before may not have had, and so did not write.

    Raises:
        WorkdirError: if it cannot be read or written, holds a run of another configuration (the
            message lists what differs), or one of which nobody knows the configuration any more.
    """
    path = workdir / "config.json"
    now = switches()
    asked = {**config, **{name: now[name] for name in now if now[name] != SWITCHES[name]}}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        there = renewed(json_files.read_object(path))
    except FileNotFoundError:
        _begin(path, asked)
        return False
    except (OSError, JsonError) as error:
        raise WorkdirError(f"cannot use {workdir} as working directory: {reason(error)}") from error
    known = {name: value for name, value in defaults.items() if name in config}
    there, asked = {**SWITCHES, **known, **there}, {**SWITCHES, **asked}
    differences = [
        f"{key}: {there.get(key)!r} there, "
        + (f"{asked[key]!r} asked for" if key in asked else "nothing that this version knows")
        for key in sorted({*there, *asked})
        if key not in asked or there.get(key) != asked[key]
    ]
    if differences:
        newer = sorted({*there} - {*asked})
        raise WorkdirError(
            f"{workdir} holds a run of another configuration ({'; '.join(differences)}). "
            "Choose another --workdir, or repeat the command that started it to resume"
            + (f", with the newer version that knows {', '.join(newer)}." if newer else ".")
        )
    return True


def _begin(path: Path, config: Mapping[str, Any]) -> None:
    """Writes whose run it is, unless there is one already that nothing tells of."""
    workdir = path.parent
    try:
        left = [found for pattern in _LEFT for found in sorted(workdir.glob(pattern))]
        if left:
            raise WorkdirError(
                f"{workdir} holds {left[0].relative_to(workdir)}, but no {path.name} that says "
                "which run wrote it; nothing was changed. Put the file back, or choose another "
                "--workdir."
            )
        write_text(path, json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
    except OSError as error:
        raise WorkdirError(f"cannot use {workdir} as working directory: {reason(error)}") from error


def save_variables(path: Path, variables: Variables) -> None:
    """Writes variables as one Orbax checkpoint; replaces what is there, whole. Process 0 only.

    Raises:
        WorkdirError: if they cannot be written.
    """
    if not is_first():
        return
    draft = path.absolute().with_name(path.name + ".part")
    write_arrays(draft, variables)
    replace(draft, path.absolute())


@checked(path=PATH)
def load_variables(path: str | Path, like: Any = None) -> Variables:
    """Reads what `save_variables` wrote; with `like` (abstract variables) checked against it.

    Raises:
        WorkdirError: if it cannot be read, or does not fit.
    """
    variables: Variables = jax.device_put(read_arrays(Path(path), like))
    return variables


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
def locked(directory: Path, *, make: bool = True) -> Iterator[None]:
    """Keeps `directory` for this process, until the end of the block or of the process.

    The lock is the operating system's, on the file `lock` (which says who has it): a process that
    was killed leaves none behind.

    Args:
        directory: to keep.
        make: it, if there is none.

    Raises:
        WorkdirError: if the directory cannot be made or written, or another process has it.
    """
    try:
        if make:
            directory.mkdir(parents=True, exist_ok=True)
        file = (directory / "lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise WorkdirError(
            f"cannot use {directory} as working directory: {reason(error)}"
        ) from error
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
