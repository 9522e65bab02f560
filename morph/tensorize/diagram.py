"""A factorized kernel as a drawing: a node for every core, an edge for every label."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from typing import Protocol

import numpy as np
import tensornetwork as tn
from tensornetwork.visualization.graphviz import to_graphviz

from morph.kernels.factorized import Format
from regularizers.checks import Rule, by_name, checked

STYLES = {
    "graph": 'rankdir=LR fontname="sans-serif"',
    "node": 'shape=circle fontname="sans-serif"',
    "edge": 'fontname="sans-serif"',
}


class Network(Protocol):
    """What is drawn: a `Factorized`, or a `PlannedKernel`."""

    @property
    def format(self) -> Format:
        """How the cores make the kernel."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """The length of every label."""


def nodes_of(kernel: Network) -> list[tn.AbstractNode]:
    """The cores as connected nodes; edges are called by their label and its length.

    A label that more than two of the cores and axes share, as CP's rank or the axis of a stack, is
    a copy node: the tensor that is one where all its indices are equal, and zero elsewhere.

    Args:
        kernel: whose format and sizes are read; the numbers are not.

    Example:
        >>> found = factorize(np.eye(6, 8), "io", "svd", 3).value
        >>> [[edge.name for edge in node.edges] for node in nodes_of(found)]
        [['i0 6', 'r 3'], ['r 3', 'o0 8']]
    """
    format, sizes = kernel.format, kernel.sizes
    nodes: list[tn.AbstractNode] = [
        tn.Node(np.broadcast_to(0.0, shape), name=name, axis_names=list(own), backend="numpy")
        for name, own, shape in zip(
            format.names, format.labels, format.core_shapes(sizes), strict=True
        )
    ]
    open_ = {label for axis in format.axes for label in axis}
    for label in dict.fromkeys(label for own in format.labels for label in own):
        ends = [node[label] for node in nodes if label in (node.axis_names or ())]
        if len(ends) + (label in open_) > 2:
            copy = tn.CopyNode(len(ends) + (label in open_), sizes[label], name=label)
            for k, end in enumerate(ends):
                tn.connect(end, copy[k], name=_edge_name(label, sizes))
            if label in open_:
                copy[len(ends)].set_name(_edge_name(label, sizes))
            nodes.append(copy)
        elif len(ends) == 2:
            tn.connect(*ends, name=_edge_name(label, sizes))
        else:
            ends[0].set_name(_edge_name(label, sizes))
    return nodes


@checked(
    kernels=by_name(
        Rule(
            asked="",
            kind=lambda value: hasattr(value, "format") and hasattr(value, "sizes"),
        ),
        "factorized or planned kernels by name",
    )
)
def to_dot(kernels: Mapping[str, Network]) -> str:
    """Tensor networks in the DOT language, each in a frame of its own.

    Any program of Graphviz draws it, e.g. `dot -Tsvg tensors.dot -o tensors.svg`; none is needed to
    write it.

    Args:
        kernels: by path.

    Returns:
        The same text for the same kernels.

    Example:
        >>> kernel = factorize(np.eye(6, 8), "io", "svd", 3).value
        >>> print(to_dot({"Dense_0/kernel": kernel}))           # doctest: +ELLIPSIS
        graph tensors {
        ...
    """
    lines = [f"\t{what} [{style}]\n" for what, style in STYLES.items()]
    number = count()
    for k, (path, kernel) in enumerate(kernels.items()):
        title = f"{path}: {kernel.format.kind}{list(kernel.format.shape(kernel.sizes))}"
        nodes = nodes_of(kernel)
        names = {str(id(node)): f"n{next(number)}" for node in nodes}
        found = _renamed("".join(to_graphviz(nodes).body), names)
        lines += [f"\tsubgraph cluster_{k} {{\n", f"\t\tgraph [label={_quoted(title)}]\n"]
        lines += [f"\t{line}\n" for line in found.splitlines()] + ["\t}\n"]
    return "".join(["graph tensors {\n", *lines, "}\n"])


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """`to_graphviz` calls nodes by where they are in memory."""
    return re.sub(r"\d+", lambda number: names.get(number[0], number[0]), text)


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _edge_name(label: str, sizes: Mapping[str, int]) -> str:
    return f"{label} {sizes[label]}"
