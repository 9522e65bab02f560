"""The file format of architectures: reading, checking against the shipped schema, writing."""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema

from morph.architecture import schemas
from morph.errors import ArchitectureError
from morph.files import write_text
from regularizers import json_files
from regularizers.json_files import JsonError

FORMAT, VERSION = "morph-architecture", 1
_MOST_ERRORS = 100  # of which the one that fits best is told


def read(path: str | Path) -> Any:
    """The JSON in a file. Raises `ArchitectureError` if it is none, `OSError` if unreadable."""
    try:
        return json_files.read(path)
    except JsonError as error:
        raise ArchitectureError(f"{path} is not JSON: {error}") from error


def check(data: Any) -> None:
    """Raises `ArchitectureError` unless `data` is an architecture as one was written.

    That is, by format, version and schema, and by its checksum if it has one.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise ArchitectureError(
            f"not an architecture: expected an object with format {FORMAT!r}, found {found!r}"
        )
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ArchitectureError(
            f"written by a newer version (format version {version}; this one reads up to "
            f"{VERSION}); upgrade morph-jax"
        )
    try:
        errors = itertools.islice(_validator().iter_errors(data), _MOST_ERRORS)
        error = jsonschema.exceptions.best_match(errors)
        found = checksum(data)
    except RecursionError as deep:
        raise ArchitectureError("malformed architecture: nested too deeply") from deep
    if error is not None:
        where = "/".join(map(str, error.absolute_path)) or "the top level"
        told = error.message  # it repeats what was found, however long
        told = told if len(told) <= 200 else f"{told[:120]} ... {told[-80:]}"
        raise ArchitectureError(f"malformed architecture at {where}: {told}")
    if data.get("sha256", found) != found:
        raise ArchitectureError(
            f"changed since it was written: its sha256 is {data['sha256'][:8]}..., that of its "
            f'contents {found[:8]}...; if the change is intended, remove the entry "sha256"'
        )


def checksum(data: Any) -> str:
    """SHA-256, in hex, of everything but "sha256": as JSON with sorted keys and no spaces."""
    rest = {name: value for name, value in data.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: str | Path, data: Any) -> None:
    """Writes JSON for people, with its checksum; the file is complete or not there at all."""
    try:
        data = json_files.parse(json.dumps(json_files.finite(data)))  # as it will be read
    except (TypeError, ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path} would not be JSON that can be read: {error}") from error
    write_text(Path(path), _text({**data, "sha256": checksum(data)}, "") + "\n")


@cache
def _validator() -> Any:
    text = resources.files("morph.architecture").joinpath("architecture.schema.json").read_bytes()
    return schemas.validator(json_files.parse(text))


def _text(data: Any, pad: str) -> str:
    """JSON indented by objects; whatever is short (an axis, numbers) stays on one line."""
    inner = pad + "  "
    if isinstance(data, dict) and data and not _is_flat(data):
        items = [f"{inner}{json.dumps(str(k))}: {_text(v, inner)}" for k, v in data.items()]
        return "{\n" + ",\n".join(items) + "\n" + pad + "}"
    if isinstance(data, list) and not _is_flat(data):
        return "[\n" + ",\n".join(inner + _text(x, inner) for x in data) + "\n" + pad + "]"
    return json.dumps(data)


def _is_flat(data: Any) -> bool:
    """Whether something is short enough for one line."""
    children = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    if isinstance(data, dict) and len(data) > 2:
        return False
    return all(not isinstance(c, dict | list) or _is_flat(c) for c in children)
