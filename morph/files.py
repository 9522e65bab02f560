"""Files that are whole or not there, and a directory that one run at a time may use."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system: runs there are not kept apart
    fcntl = None  # type: ignore[assignment]


class WorkdirError(RuntimeError):
    """A working directory that belongs to another run or cannot be used."""


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file; whatever happens meanwhile, it is the old one or the new one, whole."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file; whatever happens meanwhile, it is the old one or the new one, whole."""
    target = Path(path)
    draft = target.with_name(target.name + ".part")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
