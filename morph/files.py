"""Files that are whole or not there, and files that belong together, written together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file; whatever happens meanwhile, it is the old one or the new one, whole."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file; whatever happens meanwhile, it is the old one or the new one, whole."""
    write_parts(path, [data])


def write_parts(path: str | Path, parts: Iterable[bytes | memoryview]) -> None:
    """Writes a file, part by part; it is the old one or the new one, whole."""
    target = Path(path)
    draft = target.with_name(target.name + ".part")
    try:
        with draft.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:
        with suppress(OSError):  # where a disk is full, half a file is in the way
            draft.unlink(missing_ok=True)
        _name(error, target)
        raise
    sync(target.parent)


def append_text(path: Path, text: str) -> None:
    """Appends to a text file, which may be new."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Names the file in an error; those of `write` do not."""
    error.filename = error.filename or str(path)


@contextmanager
def together(folder: Path) -> Iterator[Path]:
    """A folder aside, for files and folders that belong together.

    They take their places in `folder` at the end of the block, all at once but for a few renames.
    If it raises, or the process dies in it, nothing there has changed. One process at a time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for path in sorted(aside.iterdir()):
            replace(path, folder / path.name)
        sync(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def replace(draft: Path, target: Path) -> None:
    """Moves a file or a folder to its place, where another one may be."""
    if not target.is_dir():
        draft.replace(target)
        return
    before = target.with_name(target.name + ".before")
    shutil.rmtree(before, ignore_errors=True)
    target.rename(before)
    draft.rename(target)
    shutil.rmtree(before, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
