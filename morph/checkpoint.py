"""Checkpoints of a run: arrays and progress together, through Orbax; and stopping for one."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import orbax.checkpoint as ocp

from morph.network import Variables


class WorkdirError(RuntimeError):
    """A working directory that belongs to another run or cannot be used."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and left a checkpoint."""


class Checkpoints:
    """The checkpoints of one working directory; the newest complete one counts.

    Args:
        workdir: where the run keeps its files.
        keep: how many checkpoints stay.
    """

    def __init__(self, workdir: Path, keep: int = 2) -> None:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(
            (workdir / "checkpoints").absolute(),
            options=options,
            item_names=("arrays", "progress"),
        )

    def save(self, number: int, arrays: Any, progress: Mapping[str, Any]) -> None:
        """Writes checkpoint `number`; it is complete or not there at all."""
        self._manager.save(
            number,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(arrays), progress=ocp.args.JsonSave(dict(progress))
            ),
            force=True,
        )
        self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """The number of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def progress(self, number: int) -> dict[str, Any]:
        """What was known besides the arrays."""
        args = ocp.args.Composite(progress=ocp.args.JsonRestore())
        return dict(self._manager.restore(number, args=args)["progress"])

    def arrays(self, number: int, like: Any) -> Any:
        """The arrays, in the structure of `like` (arrays or abstract ones)."""
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
        return self._manager.restore(number, args=args)["arrays"]

    def close(self) -> None:
        """Waits for what is being written."""
        self._manager.close()


def claim_workdir(workdir: Path, config: Mapping[str, Any]) -> bool:
    """Makes `workdir` belong to a run of `config`; True if it already did.

    Raises:
        WorkdirError: if it cannot be written, or holds a run of another configuration; the message
            lists what differs.
    """
    path = workdir / "config.json"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
            return False
        there = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise WorkdirError(f"cannot use {workdir} as working directory: {error}") from error
    differences = [
        f"{key}: {there.get(key)!r} there, {config.get(key)!r} asked for"
        for key in sorted({*there, *config})
        if there.get(key) != config.get(key)
    ]
    if differences:
        raise WorkdirError(
            f"{workdir} holds a run of another configuration ({'; '.join(differences)}). "
            "Choose another --workdir, or repeat the command that started it to resume."
        )
    return True


def save_variables(path: Path, variables: Variables) -> None:
    """Writes variables as one Orbax checkpoint; replaces what is there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), variables, force=True)


def load_variables(path: str | Path, like: Any = None) -> Variables:
    """Reads what `save_variables` wrote; with `like` (abstract variables) checked against it."""
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(Path(path).absolute(), like)


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
