"""Published latencies of the Edge TPU, and the layers of the networks that they are of."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regularizers import json_files
from regularizers.costs.edge_tpu import Layers
from regularizers.costs.edge_tpu_table import layers_of
from regularizers.errors import InputError, MorphError

PUBLISHED = Path(__file__).parent / "data" / "edge_tpu.json"


class FitError(MorphError, ValueError):
    """What is wrong with what the command was given."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A row of the table: a network and its published latency.

    Attributes:
        name: for people.
        key: of its layers.
        family: of its relatives; its key if it has none.
        seconds: published.
        trusted: whether it is fitted.
        layers: in order.
        input_bytes, output_bytes: sent to and from the device.
    """

    name: str
    key: str
    family: str
    seconds: float
    trusted: bool
    layers: Layers
    input_bytes: float
    output_bytes: float


def read_published(path: Path = PUBLISHED) -> list[Network]:
    """The table that the project carries."""
    document = json_files.read_object(path)
    return [
        _network(
            name=row["network"],
            key=row["key"],
            family=row["family"],
            latency_ms=row["latency_ms"],
            trusted=row["trusted"],
            facts=row
            | {"layers": [dict(zip(document["columns"], r, strict=True)) for r in row["layers"]]},
        )
        for row in document["networks"]
    ]


def read_tables(table: Path, networks: Path) -> list[Network]:
    """A table of latencies (CSV) and the layers of its networks (JSON)."""
    known = json_files.read_object(networks)
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FitError(f"{table} is no table: {error}") from error
    found = []
    for line, row in enumerate(rows, start=2):
        missing = {"network", "key", "usb3_latency_ms", "trusted"} - set(row)
        if missing:
            raise FitError(f"{table.name} has no column {', '.join(sorted(missing))}")
        if row["key"] not in known:
            raise FitError(f"{table.name}:{line}: {networks.name} has no network {row['key']!r}")
        if row["trusted"] not in ("yes", "no"):
            raise FitError(f"{table.name}:{line}: trusted is yes or no, not {row['trusted']!r}")
        found.append(
            _network(
                name=row["network"],
                key=row["key"],
                family=row.get("family") or row["key"],
                latency_ms=row["usb3_latency_ms"],
                trusted=row["trusted"] == "yes",
                facts=known[row["key"]],
            )
        )
    return found


def _network(
    *, name: str, key: str, family: str, latency_ms: Any, trusted: bool, facts: Mapping[str, Any]
) -> Network:
    try:
        latency = float(latency_ms)
        if not 0 < latency < np.inf:
            raise InputError(f"a latency is above 0 ms, not {latency_ms}")
        return Network(
            name=name,
            key=key,
            family=family,
            seconds=latency / 1e3,
            trusted=trusted,
            layers=layers_of(facts["layers"]),
            input_bytes=float(np.prod(facts["input"])),
            output_bytes=float(facts["output_bytes"]),
        )
    except KeyError as error:
        raise FitError(f"{key} has no {error}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise FitError(f"{key}: {error}") from None
