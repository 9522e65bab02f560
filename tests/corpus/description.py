"""What inference finds out about a network, as JSON that people read and compare."""

import json
import re
from pathlib import Path
from typing import Any

from regularizers.channels.graph import ChannelGraph
from regularizers.primitives import axes as ax

GOLDEN = Path(__file__).parent / "golden"
COLUMNS = 100

# `explain` says `  axis 0: 3, fixed: spatial axis of a convolution kernel  [file.py:7:8 (name)]`.
FIXED = re.compile(r"  axis (\d+): \d+, fixed: (.*?)(?:  \[.*\])?")
SOURCE_LINE = re.compile(r" \[[^\[\]]*:\d+[^\[\]]*\]$")


def describe(graph: ChannelGraph) -> dict[str, Any]:
    """Groups and variables by name: widths, members, axes, and why the rest is fixed.

    Source lines are left out: they differ from machine to machine and from edit to edit.
    """
    groups, variables = {}, {}
    for name, group in graph.groups.items():
        groups[name] = {
            "width": group.width,
            "exact": group.exact or SOURCE_LINE.sub("", group.why_inexact),
            "members": sorted(map(str, group.members)),
        }
    for path, variable in graph.variables.items():
        fixed: dict[str, list[str]] = {}
        for line in graph.explain(path).splitlines():
            if found := FIXED.fullmatch(line):
                fixed.setdefault(found[1], []).append(found[2])
        variables[path] = {"axes": [ax.to_json(axis) for axis in variable.axes]}
        if fixed:
            variables[path]["fixed"] = {k: "; ".join(reasons) for k, reasons in fixed.items()}
    return {"groups": groups, "unknown": sorted(graph.unknown), "variables": variables}


def render(data: Any, indent: int = 0, before: int = 0) -> str:
    """JSON with sorted keys, in which all that fits is on one line.

    Args:
        data: what `json` can write.
        indent: of the line that it begins on.
        before: how much of that line is taken by its key.
    """
    line = json.dumps(data, sort_keys=True, ensure_ascii=False)
    if not isinstance(data, dict | list) or indent + before + len(line) < COLUMNS:
        return line
    keys = [json.dumps(key) + ": " for key in sorted(data)] if isinstance(data, dict) else []
    values = [data[key] for key in sorted(data)] if isinstance(data, dict) else data
    keys = keys or [""] * len(values)
    inner = " " * (indent + 1)
    parts = [
        inner + key + render(value, indent + 1, len(key))
        for key, value in zip(keys, values, strict=True)
    ]
    first, last = "{}" if isinstance(data, dict) else "[]"
    return "\n".join([first, ",\n".join(parts), " " * indent + last])


def golden_file(name: str) -> Path:
    """Where the description of a network is kept."""
    return GOLDEN / f"{name}.json"
