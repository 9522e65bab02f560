"""A file of a network: every leaf of its variables, its architecture, and what else it needs.

    magic (8 bytes) | version u16 | header length u32 | header | parts | SHA-256 of all before

The header is JSON, deflated: `tree` nests the variables' names down to numbers of leaves, `leaves`
has a record for each (see `leaves`), `architecture` and `network` are the caller's. Everything is
little-endian; docs/container.md tells all of it. Nothing in a file is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np

from morph.compress.coding.gaps import WIDEST
from morph.compress.coding.leaves import BEST, DTYPES, KINDS, RAW, Part, Record, decode, encode
from morph.compress.coding.symbols import CODERS
from morph.errors import ContainerError
from morph.files import write_bytes
from morph.kernels.factorized import Factorized, Format
from regularizers import json_files
from regularizers.checks import LEAVES, NAME, PATH, Rule, a, checked, whole
from regularizers.errors import InputError
from regularizers.messages import near

MAGIC = b"\x89MORPH\r\n"
VERSION = 1
HEAD = struct.Struct("<8sHI")
DIGEST = 32
HEADER_BYTES = 16 << 20  # a header, inflated
CHOICES = (BEST, *CODERS)
DENSE_BYTES = 1 << 30  # all leaves, dense

VARIABLES = Rule(
    asked="nested dicts of arrays",
    kind=lambda value: isinstance(value, Mapping) and LEAVES.kind(value),
)


def _with(kind: str, required: list[str], least: int, most: int) -> dict[str, Any]:
    """What the record of one kind has beside the rest."""
    return {
        "if": {"properties": {"kind": {"const": kind}}},
        "then": {
            "required": required,
            "properties": {"parts": {"minItems": least, "maxItems": most}},
        },
    }


COUNT = {"type": "integer", "minimum": 0, "maximum": 1 << 40}
NAMES = {"type": "array", "items": {"type": "string"}}
SCHEMA = {
    "type": "object",
    "required": ["tree", "leaves"],
    "additionalProperties": False,
    "properties": {
        "architecture": {"type": ["object", "null"]},
        "network": {"type": "object"},
        "tree": {"$ref": "#/$defs/node"},
        "leaves": {"type": "array", "items": {"$ref": "#/$defs/leaf"}},
    },
    "$defs": {
        "node": {
            "oneOf": [
                {"type": "integer", "minimum": 0},
                {
                    "type": "object",
                    "required": ["names"],
                    "additionalProperties": False,
                    "properties": {
                        "names": {
                            "type": "object",
                            "additionalProperties": {"$ref": "#/$defs/node"},
                        }
                    },
                },
                {
                    "type": "object",
                    "required": ["format", "cores"],
                    "additionalProperties": False,
                    "properties": {
                        "format": {
                            "type": "object",
                            "required": ["kind", "names", "labels", "axes"],
                            "additionalProperties": False,
                            "properties": {
                                "kind": {"type": "string"},
                                "names": NAMES,
                                "labels": {"type": "array", "items": NAMES},
                                "axes": {"type": "array", "items": NAMES},
                            },
                        },
                        "cores": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    },
                },
            ]
        },
        "leaf": {
            "type": "object",
            "required": ["kind", "dtype", "shape", "parts"],
            "additionalProperties": False,
            "properties": {
                "kind": {"enum": list(KINDS)},
                "dtype": {"enum": list(DTYPES)},
                "shape": {"type": "array", "items": COUNT, "maxItems": 16},
                "index_bits": {"type": "integer", "minimum": 1, "maximum": WIDEST},
                "code_dtype": {"enum": ["uint8", "uint16"]},
                "word_length": {"type": "integer", "minimum": 2, "maximum": 16},
                "fractional_length": {"type": "integer", "minimum": -126, "maximum": 126},
                "parts": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 3,
                    "items": {
                        "type": "array",
                        "prefixItems": [{"enum": [RAW, *CODERS]}, COUNT, COUNT],
                        "minItems": 3,
                        "maxItems": 3,
                    },
                },
            },
            "allOf": [
                _with("shared", ["code_dtype"], 2, 3),
                _with("pruned", ["index_bits"], 3, 3),
                _with("fixed", ["word_length", "fractional_length"], 1, 1),
                _with("array", [], 1, 1),
            ],
        },
    },
}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a file holds.

    Attributes:
        variables: nested dicts of arrays, compressed and factorized kernels.
        architecture: as `Architecture.to_json` gives it; None for none.
        network: whatever else tells how to build the network.
        records: for every leaf its path and record, in the order of the file.
        overhead: bytes of the file that are not of a leaf's parts.
    """

    variables: Mapping[str, Any]
    architecture: Mapping[str, Any] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict)
    overhead: int = 0


@checked(
    variables=VARIABLES,
    architecture=a(Mapping, "JSON, as Architecture.to_json() gives it"),
    network=a(Mapping, "JSON: a mapping"),
    coder=NAME,
)
def pack(
    variables: Mapping[str, Any],
    *,
    architecture: Mapping[str, Any] | None = None,
    network: Mapping[str, Any] | None = None,
    coder: str = BEST,
) -> bytes:
    """A network as bytes.

    Args:
        variables: nested dicts of arrays, compressed kernels and factorized kernels, whose cores
            may be compressed, too.
        architecture: as `Architecture.to_json` gives it; None if the network has the seed's shapes.
        network: whatever else tells how to build it, as JSON; e.g. its name and settings.
        coder: `huffman`, `ans`, `plain`, or `best`: whichever makes a part smallest.

    Raises:
        TypeError: if a leaf has no place in a file.
        ValueError: if `network` or `architecture` is no JSON, or the coder is unknown.
    """
    if coder not in CHOICES:
        raise InputError(f"pack: there is no coder {coder!r}{near(coder, CHOICES)}")
    records: list[Record] = []
    parts: list[Part] = []

    def number(leaf: Any) -> int:
        record, own = encode(leaf, coder)
        records.append(record)
        parts.extend(own)
        return len(records) - 1

    def node(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"names": {str(name): node(child) for name, child in value.items()}}
        if isinstance(value, Factorized):
            form = value.format
            return {
                "format": {
                    "kind": form.kind,
                    "names": list(form.names),
                    "labels": list(map(list, form.labels)),
                    "axes": list(map(list, form.axes)),
                },
                "cores": [number(core) for core in value.cores],
            }
        return number(value)

    header = {"tree": node(variables), "leaves": records, "network": dict(network or {})}
    if architecture is not None:
        header["architecture"] = dict(architecture)
    try:
        text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"pack: network and architecture must be JSON, of finite numbers: {error}"
        ) from error
    packed = zlib.compress(text, 9)
    body = b"".join([HEAD.pack(MAGIC, VERSION, len(packed)), packed, *(p.data for p in parts)])
    return body + hashlib.sha256(body).digest()


@checked(
    data=a((bytes, bytearray, memoryview), "bytes, as morph.compress.pack gives them"),
    most_bytes=whole(least=1),
)
def unpack(data: bytes, *, most_bytes: int = DENSE_BYTES) -> Contents:
    """The network that bytes hold, bit for bit; safe on bytes of any origin.

    What it allocates is at most a few times `most_bytes`, whatever a file claims to hold.

    Args:
        data: what `pack` gave.
        most_bytes: a file whose leaves are larger than that in all, dense, is refused.

    Raises:
        ContainerError: if they are damaged, of another version, too large, or contradict
            themselves.
    """
    header, body = _header(data)
    records = header["leaves"]
    sizes = [
        math.prod(record["shape"]) * np.dtype(jax.numpy.dtype(record["dtype"])).itemsize
        for record in records
    ]
    if sum(sizes) > most_bytes:
        raise ContainerError(
            f"its leaves are {sum(sizes):,} bytes when dense, and {most_bytes:,} are allowed; "
            "allow more with most_bytes= if you trust its source"
        )
    lengths = [sum(length for _, _, length in record["parts"]) for record in records]
    if sum(lengths) != len(body):
        raise ContainerError(f"its leaves take {sum(lengths):,} bytes, it has {len(body):,}")
    ends = np.cumsum(lengths, dtype=np.int64)
    leaves = [
        decode(record, body[end - length : end])
        for record, end, length in zip(records, ends, lengths, strict=True)
    ]
    found: dict[str, Record] = {}
    variables = _tree(header["tree"], leaves, records, found, "", most_bytes)
    if not isinstance(variables, dict) or len(found) != len(leaves):
        raise ContainerError(f"its tree names {len(found)} of {len(leaves)} leaves")
    return Contents(
        variables=variables,
        architecture=header.get("architecture"),
        network=header.get("network", {}),
        records=found,
        overhead=len(data) - len(body),
    )


def _header(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, checked, and the parts after it."""
    if len(data) < HEAD.size + DIGEST or data[: len(MAGIC)] != MAGIC:
        raise ContainerError(f"not a network: it does not begin with {MAGIC!r}")
    _, version, length = HEAD.unpack_from(data)
    if version != VERSION:
        raise ContainerError(f"it is of version {version}; this program reads version {VERSION}")
    body, digest = data[:-DIGEST], data[-DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ContainerError("its checksum is wrong: it was damaged or cut off")
    end = HEAD.size + length
    if end > len(body):
        raise ContainerError(f"its header is cut off: {length:,} bytes in {len(body):,}")
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(body[HEAD.size : end], HEADER_BYTES)
        if not inflater.eof:
            raise ContainerError(f"its header is cut off, or of more than {HEADER_BYTES:,} bytes")
        header = json_files.parse(text, most_bytes=HEADER_BYTES)
        _validator().validate(header)
    except (zlib.error, ValueError, RecursionError, jsonschema.ValidationError) as error:
        if isinstance(error, ContainerError):
            raise
        reason = getattr(error, "message", str(error)).splitlines()[0][:200]
        raise ContainerError(f"its header is broken: {reason}") from error
    return header, body[end:]


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(SCHEMA)


def _tree(
    node: Any,
    leaves: list[Any],
    records: list[Record],
    found: dict[str, Record],
    path: str,
    most_bytes: int,
) -> Any:
    """The part of the variables below a path; notes the paths of leaves."""

    def take(i: int, path: str) -> Any:
        if i >= len(leaves):
            raise ContainerError(f"{path} is leaf {i} of {len(leaves)}")
        if path in found:
            raise ContainerError(f"two leaves are {path}")
        found[path] = records[i]
        return leaves[i]

    if isinstance(node, int):
        return take(node, path)
    if "names" in node:
        return {
            name: _tree(
                child, leaves, records, found, f"{path}/{name}" if path else name, most_bytes
            )
            for name, child in node["names"].items()
        }
    own = node["format"]
    form = Format(
        kind=own["kind"],
        names=tuple(own["names"]),
        labels=tuple(map(tuple, own["labels"])),
        axes=tuple(map(tuple, own["axes"])),
    )
    named = zip(form.names, node["cores"], strict=False)
    cores = tuple(take(i, f"{path}/{name}") for name, i in named)
    _check_format(form, cores, path, most_bytes)
    return Factorized(cores=cores, format=form)


def _check_format(form: Format, cores: tuple[Any, ...], path: str, most_bytes: int) -> None:
    """Raises unless cores make a kernel."""
    sizes: dict[str, int] = {}
    fits = len(form.names) == len(form.labels) == len(cores) > 0
    for own, core in zip(form.labels, cores, strict=False):
        fits &= len(own) == len(core.shape) == len(set(own))
        for label, length in zip(own, core.shape, strict=False):
            fits &= sizes.setdefault(label, length) == length
    axes = [label for axis in form.axes for label in axis]
    fits &= set(axes) <= set(sizes) and len(set(axes)) == len(axes)
    if not fits:
        raise ContainerError(f"the cores of {path} do not make a kernel")
    if 8 * math.prod(form.shape(sizes)) > most_bytes:
        raise ContainerError(f"the kernel {path} is larger than {most_bytes:,} bytes when dense")


@checked(path=PATH, variables=VARIABLES)
def save(path: str | Path, variables: Mapping[str, Any], **more: Any) -> int:
    """Writes what `pack` gives; the file is complete or not there at all.

    Args:
        path: of the file.
        variables: and all else: as in `pack`.
        **more: as in `pack`.

    Returns:
        Its size in bytes.
    """
    data = pack(variables, **more)
    write_bytes(path, data)
    return len(data)


@checked(path=PATH, most_bytes=whole(least=1))
def load(path: str | Path, *, most_bytes: int = DENSE_BYTES) -> Contents:
    """Reads a file; see `unpack`.

    Raises:
        ContainerError: naming the file and what is wrong with it.
        OSError: if it cannot be read.
    """
    try:
        return unpack(Path(path).read_bytes(), most_bytes=most_bytes)
    except ContainerError as error:
        raise ContainerError(f"{path}: {error}") from error


@checked(one=LEAVES, other=LEAVES)
def same(one: Any, other: Any) -> bool:
    """Whether two trees are the same to the last bit: values, types, and what stands where."""

    def bits(tree: Any) -> tuple[Any, list[tuple[Any, Any, bytes]]]:
        leaves, form = jax.tree.flatten(tree)
        return form, [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in leaves]

    return bits(one) == bits(other)
