"""What a file of 8-bit integers can do without: long names, and arrays that are there twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

from morph.export.onnx_layout import used_names


def lean(model: Any, known: Any) -> None:
    """Shortens, in place, what was added to a file, and puts nodes behind what they read.

    Of small networks in 8 bits, names and repeated zero points are more than a tenth.

    Args:
        model: ONNX's protocol buffer.
        known: what it was before: its names stay.
    """
    graph, old = model.graph, known.graph
    kept = {"", *used_names(old.node), *(own.name for own in (*old.node, *old.output))}
    short = (own for own in map(_digits, itertools.count()) if own not in kept)
    new: dict[str, str] = {}
    first: dict[Any, str] = {}

    def renamed(name: str) -> str:
        if name not in new:
            new[name] = name if name in kept else next(short)
        return new[name]

    arrays, nodes = list(graph.initializer), _in_order(graph.node)
    del graph.initializer[:], graph.node[:], graph.value_info[:]
    for array in arrays:
        content = array.data_type, tuple(array.dims), bytes(array.raw_data)
        if array.name not in kept and array.raw_data and content in first:
            new[array.name] = first[content]
            continue
        array.name = first[content] = renamed(array.name)
        graph.initializer.append(array)
    for node in nodes:
        node.input[:], node.output[:] = map(renamed, node.input), map(renamed, node.output)
        if node.name not in kept:
            node.ClearField("name")
    graph.node.extend(nodes)


def _in_order(nodes: Iterable[Any]) -> list[Any]:
    """Nodes behind those whose results they read."""
    nodes = list(nodes)
    makers = {name: node for node in nodes for name in node.output}
    found: list[Any] = []
    done: set[int] = set()
    for last in nodes:
        path = [last]
        while path:
            node = path[-1]
            ahead = [makers[name] for name in used_names([node]) if name in makers]
            ahead = [own for own in ahead if id(own) not in done]
            path += ahead
            if not ahead:
                path.pop()
                if id(node) not in done:
                    done.add(id(node))
                    found.append(node)
    return found


def _digits(number: int) -> str:
    """A number in letters and digits, the shortest first."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    found = digits[number % 36]
    while number := number // 36:
        found = digits[number % 36] + found
    return found
