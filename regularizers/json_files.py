"""The one reader of JSON: bounded in bytes, depth and numbers, so that a hostile file is an error.

What it reads can be written, and read again; `text` is how anything is written.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from regularizers.errors import InputError

MOST_BYTES = 16 << 20
MOST_DEPTH = 64
MOST_NODES = 200_000  # arrays and objects
_INT64 = range(-(2**63), 2**63)
_LONG = re.compile(rb"\d{19}")  # digits in a row that an int64 may not hold
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonError(InputError):
    """A file that is no JSON, or more than can be read safely."""


def parse(text: str | bytes, *, most_bytes: int = MOST_BYTES) -> Any:
    """The value of a JSON text.

    Args:
        text: as text, or in UTF-8.
        most_bytes: that the text may have.

    Raises:
        JsonError: if it is not UTF-8, no JSON, too long, nested deeper than `MOST_DEPTH`, holds
            more than `MOST_NODES` arrays and objects, a number that is not finite or an integer
            beyond 64 bits, a name twice in one object, or half of a character.

    Example:
        >>> parse('{"width": 5}')
        {'width': 5}
    """
    try:
        data = text.encode() if isinstance(text, str) else text
        if len(data) > most_bytes:
            raise JsonError(f"it has more than {most_bytes:,} bytes")
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int if _LONG.search(data) else None,
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise JsonError(f"it is nested deeper than {MOST_DEPTH} levels") from None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise JsonError(f"it is not UTF-8: {error.reason}") from None
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
        raise JsonError(f"{error.msg} at {line}column {error.colno}") from None
    _check_size(value)
    return value


def finite(value: Any) -> Any:
    """The same, with null for every number that is not finite: JSON has no such numbers."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    r"""The JSON text of a value, with the end of its last line.

    Numbers that are not finite become null.

    Args:
        value: of dictionaries, lists, tuples, strings, numbers, booleans and None.
        indent: spaces per level; None for one line.
        sort_keys: whether names go by the alphabet.

    Raises:
        JsonError: if JSON cannot hold it.

    Example:
        >>> text({"loss": float("nan")})
        '{"loss": null}\\n'
    """
    try:
        return json.dumps(finite(value), indent=indent, sort_keys=sort_keys, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise JsonError(f"JSON cannot hold it: {error}") from error


def parse_object(text: str | bytes, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object that a JSON text is; raises `JsonError` if it is none, and as `parse`."""
    value = parse(text, most_bytes=most_bytes)
    if not isinstance(value, dict):
        raise JsonError(f"expected an object, found {_kind(value)}")
    return value


def read(path: str | Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """The value in a file; raises as `parse`, and OSError where the file cannot be read."""
    return parse(read_bytes(path, most_bytes), most_bytes=most_bytes)


def read_object(path: str | Path, *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The object in a file; raises as `parse_object`, and OSError if it cannot be read."""
    return parse_object(read_bytes(path, most_bytes), most_bytes=most_bytes)


def read_records(path: str | Path) -> Iterator[dict[str, Any]]:
    """The objects of a file that holds one per line.

    A last line that was cut off, because whoever wrote it died, is left out.

    Raises:
        JsonError: naming the line that is no object. OSError: if the file cannot be read.
    """
    with Path(path).open("rb") as file:
        number, line = 1, file.readline(MOST_BYTES + 1)
        while line:
            after = file.readline(MOST_BYTES + 1)
            try:
                yield parse_object(line)
            except JsonError as error:
                if after or line.endswith(b"\n"):
                    raise JsonError(f"line {number}: {error}") from None
            number, line = number + 1, after


def read_bytes(path: str | Path, most_bytes: int = MOST_BYTES) -> bytes:
    """What a file holds, up to one byte more than `most_bytes`, which `parse` then refuses."""
    with Path(path).open("rb") as file:
        return file.read(most_bytes + 1)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = max(counts, key=counts.__getitem__)
        raise JsonError(f"an object has the name {twice[:80]!r} twice")
    return found


def _constant(text: str) -> NoReturn:
    raise JsonError(f"{text} is not a number in JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"{text[:40]} is beyond the largest number")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or int(text) not in _INT64:
        raise JsonError(f"an integer of {len(text)} digits is beyond 64 bits")
    return int(text)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _check_size(value: Any) -> None:
    depth, nodes, level = 0, 0, [value] if isinstance(value, dict | list) else []
    while level:
        depth, nodes = depth + 1, nodes + len(level)
        if depth > MOST_DEPTH:
            raise JsonError(f"it is nested deeper than {MOST_DEPTH} levels")
        if nodes > MOST_NODES:
            raise JsonError(f"it holds more than {MOST_NODES:,} arrays and objects")
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
