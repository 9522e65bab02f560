"""Plain English that packages of Debian hold: sayings, a dictionary; and texts cut into pieces."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from experiments.dataset_files import DatasetError
from experiments.datasets import DATA_DIR_VARIABLE
from morph.errors import DataError

INSTALLED = {"fortunes": "/usr/share/games/fortunes", "dictd": "/usr/share/dictd"}
HELD_OUT = ("literature", "wisdom")  # what is measured on; nothing else reads them
_DICTIONARY = "gcide.dict.dz"
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
    folder = _folder("fortunes", HELD_OUT[0], "fortunes", data_dir)
    if names is None:
        there = sorted(path.name for path in folder.iterdir() if not path.suffix)
        names = [name for name in there if name not in (*HELD_OUT, *NOT_PROSE)]
    found = []
    for name in names:
        text = (folder / name).read_text(encoding="utf8", errors="replace")
        found += [saying.strip() for saying in text.split("\n%\n") if saying.strip()]
    return found


class Entry(NamedTuple):
    """One sense of a word in a dictionary."""

    word: str
    sense: str


# Pronunciation and origin stand between a word and its senses, which begin with a capital letter.
_HEAD = re.compile(r"^(?P<word>[A-Za-z][A-Za-z -]*[a-z]) \\[^\\]*\\")
_SENSE = re.compile(
    r"(?:(?<=[\].)]\n)|\A)   (?:\d+\. )?(?:\([A-Z][a-z. &]*\) )?(?P<text>[A-Z][a-z ].*)", re.S
)
_END = re.compile(r"[][]|--|\"|:|(?<=[a-z]{3})\. ")  # of a sense: its source, author, an example
_FEWEST, _MOST = 4, 40  # words of a sense


def dictionary(data_dir: str | None = None) -> list[Entry]:
    """The senses of words in Debian's package `dict-gcide`, whose core is Webster's of 1913.

    The first sentence of each, without marks, sources and examples; what is not of that form is
    left out.

    Args:
        data_dir: folder to look in first, for a folder `dictd`; else as `fortunes`.

    Raises:
        TextsNotFoundError: if it is nowhere; the message names the package.
        DatasetError: if it cannot be read.
    """
    path = _folder("dictd", _DICTIONARY, "dict-gcide", data_dir) / _DICTIONARY
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf8", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(
            f"{path} cannot be read ({error}); install the Debian package dict-gcide again"
        ) from error
    found = []
    for entry in re.split(r"\n\n(?=\S)", text):
        head = _HEAD.match(entry)
        if head is None:
            continue
        first, *others = re.split(r"\n[ \t]*\n", entry[head.end() :])
        for paragraph in (first[first.find("\n") + 1 :], *others):
            if (sense := _sense(paragraph)) is not None:
                found.append(Entry(head["word"], sense))
    return found


def _sense(paragraph: str) -> str | None:
    """The first sentence of a sense, if the paragraph is one."""
    match = _SENSE.search(paragraph)
    if match is None:
        return None
    text = " ".join(match["text"].split())
    text = re.sub(r"[{}]", "", _END.split(text, maxsplit=1)[0]).strip(" ;,.")
    words = len(text.split())
    return f"{text}." if _FEWEST <= words <= _MOST and text.isascii() else None


def _folder(name: str, file: str, package: str, data_dir: str | None) -> Path:
    """Where the files of a package are."""
    roots = [data_dir, os.environ.get(DATA_DIR_VARIABLE)]
    folders = [Path(root) / name for root in roots if root] + [Path(INSTALLED[name])]
    for folder in folders:
        if (folder / file).is_file():
            return folder
    raise TextsNotFoundError(
        f"The texts of {package} were not found. Looked in {', '.join(map(str, folders))}. "
        f"Install the Debian package {package}, or unpack its files into a folder {name!r} of "
        f"data_dir or ${DATA_DIR_VARIABLE}."
    )


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


def spread(rows: Int[np.ndarray, "m t"], count: int) -> Int[np.ndarray, "n t"]:
    """So many of the rows, evenly spread over all."""
    return rows[:: len(rows) // count][:count]
