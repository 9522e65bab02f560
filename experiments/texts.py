"""Plain English texts that packages of Debian hold, and texts as pieces of so many tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int

from experiments.dataset_files import DatasetError
from experiments.datasets import DATA_DIR_VARIABLE
from morph.errors import DataError

INSTALLED = "/usr/share/games/fortunes"
HELD_OUT = ("literature", "wisdom")  # what is measured on; nothing else reads them
# Pictures, other languages, and a language's own jokes.
NOT_PROSE = ("ascii-art", "debian", "linux", "magic", "perl", "translate-me")


class TextsNotFoundError(DatasetError, FileNotFoundError):
    """Texts are in none of the places where they are looked for."""


def fortunes(names: Iterable[str] | None = None, data_dir: str | None = None) -> list[str]:
    """The sayings of Debian's package `fortunes`.

    Args:
        names: of its files; if not given, all prose but `HELD_OUT`.
        data_dir: folder to look in first; then the one that MORPH_DATA_DIR names, then where the
            package installs them.

    Raises:
        TextsNotFoundError: if they are nowhere; the message names the package.
    """
    roots = [data_dir, os.environ.get(DATA_DIR_VARIABLE)]
    folders = [Path(root) / "fortunes" for root in roots if root] + [Path(INSTALLED)]
    folder = next((one for one in folders if (one / HELD_OUT[0]).is_file()), None)
    if folder is None:
        raise TextsNotFoundError(
            f"The texts of fortunes were not found. Looked in {', '.join(map(str, folders))}. "
            "Install the Debian package fortunes, or unpack its files into a folder 'fortunes' of "
            f"data_dir or ${DATA_DIR_VARIABLE}."
        )
    if names is None:
        there = sorted(path.name for path in folder.iterdir() if not path.suffix)
        names = [name for name in there if name not in (*HELD_OUT, *NOT_PROSE)]
    found = []
    for name in names:
        text = (folder / name).read_text(encoding="utf8", errors="replace")
        found += [saying.strip() for saying in text.split("\n%\n") if saying.strip()]
    return found


def pieces(tokens: Int[np.ndarray, " n"], length: int, count: int = 1) -> Int[np.ndarray, "m t"]:
    """A text cut into pieces, the rest left over.

    Args:
        tokens: of the text.
        length: of a piece.
        count: the fewest that there must be.

    Raises:
        DataError: if there are fewer.
    """
    found = tokens[: len(tokens) // length * length].reshape(-1, length)
    if len(found) < count:
        raise DataError(
            f"the text is too short: {len(tokens)} tokens, of which {count} pieces of {length} "
            f"each were to be cut ({count * length})"
        )
    return found
