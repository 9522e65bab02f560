"""A channel graph as nodes and segments of channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.costs.flops import operation_name
from regularizers.primitives import axes as ax
from regularizers.primitives import jaxprs
from regularizers.primitives.axes import Axis
from regularizers.primitives.jaxprs import Jaxpr, JaxprEqn, Literal, Var
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.step import Operation

# Okabe & Ito's colours, then Tol's muted ones: colour-blind readers can tell neighbours apart.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
    "#882255", "#88CCEE", "#117733", "#DDCC77", "#332288", "#AA4499", "#44AA99",
)  # fmt: skip


_JOINS = {
    p.add_p: ("+", "added"),
    p.sub_p: ("−", "subtracted"),
    p.mul_p: ("×", "multiplied"),
    p.concatenate_p: ("‖", "concatenated"),
}


Segment: TypeAlias = tuple[str, int]  # a group ("" where the width is fixed) and how many channels


@dataclass(frozen=True, kw_only=True)
class Node:
    """A box, or what stands between boxes.

    Attributes:
        kind: "layer", "table" (looked up, no product), "input" or "join".
        name: the layer's name; the symbol of a join.
        text: what else is written in the box.
        into: the groups that come in, in order, with their widths.
        out: likewise, those that go out.
    """

    kind: str
    name: str
    text: tuple[str, ...] = ()
    into: tuple[Segment, ...] = ()
    out: tuple[Segment, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Flow:
    """What is drawn: nodes in the order of the function, and the data flow between them.

    Attributes:
        nodes: in the order of first use.
        edges: for each pair of positions in `nodes`, the groups that flow (none: fixed widths).
    """

    nodes: tuple[Node, ...]
    edges: Mapping[tuple[int, int], tuple[str, ...]]


def flow_of(graph: ChannelGraph) -> Flow:
    """The layers of a graph and the data flow between them, read off its jaxpr.

    Where two different streams meet (a residual sum, a concatenation, a gate) stands a join.
    """
    tracer = _Tracer(graph=graph)
    tracer.walk(graph.jaxpr, tracer.inputs())
    return _pruned(tracer.nodes, tracer.edges)


@dataclass(kw_only=True)
class _Tracer:
    """Follows every value of a jaxpr back to the one node it comes from (None: a constant)."""

    graph: ChannelGraph
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    _layers: dict[str, int] = field(default_factory=dict)
    _joins: dict[tuple[str, frozenset[int]], int] = field(default_factory=dict)
    _operations: dict[int, list[Operation]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operation in reversed(self.graph.operations):
            self._operations.setdefault(id(operation.params), []).append(operation)

    def inputs(self) -> list[int | None]:
        """The nodes of the jaxpr's inputs: one per table and per input array."""
        variables = list(self.graph.variables.values())
        tables = [v.kind == "table" and v.trained for v in variables]
        found = [
            self._add(Node(kind="table", name=layer_name(v.path), **self._table(v.axes, v.shape)))
            if table
            else None
            for v, table in zip(variables, tables, strict=True)
        ]
        given = self.graph.jaxpr.invars[len(variables) :]
        for i, var in enumerate(given):
            name = f"input {i}" if len(given) > 1 else "input"
            text = f"{getattr(var.aval, 'dtype', '')}[{', '.join(map(str, jaxprs.shape_of(var)))}]"
            found.append(self._add(Node(kind="input", name=name, text=(text,))))
        return found

    def walk(self, jaxpr: Jaxpr, inputs: Sequence[int | None]) -> list[int | None]:
        """The nodes that the outputs of `jaxpr` come from."""
        env: dict[Var, int | None] = dict(zip(jaxpr.invars, inputs, strict=True))
        env.update(dict.fromkeys(jaxpr.constvars))

        def read(v: Var | Literal) -> int | None:
            return None if isinstance(v, Literal) else env[v]

        for eqn in jaxprs.live_equations(jaxpr):
            sources = [read(v) for v in eqn.invars]
            operation = self._operation(eqn)
            results = None if operation else self._inside(eqn, sources)
            if operation:
                results = [self._operate(operation, sources)]
            elif results is None:
                results = [self._join(eqn, sources)] * len(eqn.outvars)
            env.update(zip(eqn.outvars, results, strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _inside(self, eqn: JaxprEqn, sources: list[int | None]) -> list[int | None] | None:
        """The results of an equation that runs other jaxprs; None if it does not.

        Their inputs are the last operands: all of a call's or a scan's, all but the index of a
        cond's, all but what only the condition of a while sees.
        """
        bodies = [
            body
            for body in map(_jaxpr, _values(eqn.params))
            if body is not None
            and len(body.outvars) == len(eqn.outvars)
            and len(body.invars) <= len(sources)
        ]
        if not bodies:
            return None
        each = [self.walk(body, sources[len(sources) - len(body.invars) :]) for body in bodies]
        return [self._join(eqn, outs) for outs in zip(*each, strict=True)]

    def _operation(self, eqn: JaxprEqn) -> Operation | None:
        waiting = self._operations.get(id(eqn.params), [])
        return (waiting.pop() if len(waiting) > 1 else waiting[0]) if waiting else None

    def _operate(self, operation: Operation, sources: Sequence[int | None]) -> int:
        """The box of an operation: one per layer, and one per product of activations."""
        kind, kernel, into, out = operation_name(operation)
        position = self._layers.get(operation.layer) if operation.kernel else None
        if position is None:
            if operation.kernel:
                ins, outs = self._segments([into]), self._segments([out])
            else:
                ins = self._groups((*operation.lhs, *operation.rhs), into)
                outs = self._groups(operation.out, out)
            summed, made = (ax.size(axis, self.graph.widths) for axis in (into, out))
            sizes = f"{summed} → {made}" if operation.kernel else f"over {summed}"
            position = self._add(
                Node(
                    kind="layer",
                    name=operation.layer,
                    text=(" ".join([kind, "×".join(map(str, kernel))]).strip(), sizes),
                    into=ins,
                    out=outs,
                )
            )
            if operation.kernel:
                self._layers[operation.layer] = position
        for source in sources:
            # A tied table is the layer's own kernel, and a layer that is called again feeds itself.
            own = source is not None and (
                self.nodes[source].kind == "table" and self.nodes[source].name == operation.layer
            )
            if source is not None and not own:
                self.edges.append((source, position))
        return position

    def _join(self, eqn: JaxprEqn, sources: Sequence[int | None]) -> int | None:
        """The node of what several streams were made into; no new one where there is one."""
        streams = frozenset(source for source in sources if source is not None)
        if len(streams) <= 1:
            return next(iter(streams), None)
        table = sources[0] if eqn.primitive is p.gather_p else None
        if table is not None and self.nodes[table].kind == "table":
            self.edges += [(s, table) for s in streams - {table}]  # its indices
            return table
        symbol, verb = _JOINS.get(eqn.primitive, ("·", eqn.primitive.name))
        key = symbol, streams
        if key not in self._joins:
            self._joins[key] = self._add(Node(kind="join", name=symbol, text=(verb,)))
            self.edges += [(source, self._joins[key]) for source in sorted(streams)]
        return self._joins[key]

    def _add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _segments(self, axes: Sequence[Axis]) -> tuple[Segment, ...]:
        return tuple(
            (group, self.graph.groups[group].width) if group else ("", width)
            for axis in axes
            for group, width in _leaves(axis)
        )

    def _groups(self, axes: Sequence[Axis], fallback: Axis) -> tuple[Segment, ...]:
        """Every group of `axes` once, where no single axis tells it all."""
        names = dict.fromkeys(group for axis in axes for group in ax.groups_of(axis))
        return self._segments(list(names)) or self._segments([fallback])

    def _table(self, axes: Sequence[Axis], shape: Sequence[int]) -> dict[str, Any]:
        return {
            "text": ("table", " × ".join(map(str, shape))),
            "out": self._groups(axes, shape[-1] if shape else 1),
        }


def _values(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        yield from value if isinstance(value, tuple | list) else (value,)


def _jaxpr(value: Any) -> Jaxpr | None:
    if isinstance(value, jaxprs.ClosedJaxpr):
        return value.jaxpr
    return value if isinstance(value, Jaxpr) else None


def count_equations(jaxpr: Jaxpr) -> int:
    """The equations that a jaxpr's outputs depend on, those of inner jaxprs included."""
    total = 0
    for eqn in jaxprs.live_equations(jaxpr):
        inner = [body for body in map(_jaxpr, _values(eqn.params)) if body is not None]
        total += sum(map(count_equations, inner)) if inner else 1
    return total


def _leaves(axis: Axis) -> Iterator[Segment]:
    """The groups and fixed stretches of an axis, in order."""
    match axis:
        case int():
            yield "", axis
        case str():
            yield axis, 0
        case ax.Sum(children) | ax.Product(children):
            for child in children:
                yield from _leaves(child)
        case ax.Permuted(child):
            yield from _leaves(child)


def _pruned(nodes: Sequence[Node], edges: Sequence[tuple[int, int]]) -> Flow:
    """Leaves out joins and inputs that reach no layer, and lines that would run backwards."""
    forward = sorted({(a, b) for a, b in edges if a < b or nodes[b].kind == "table"})
    successors = defaultdict(list)
    for a, b in forward:
        successors[a].append(b)
    kept = {i for i, node in enumerate(nodes) if node.kind in ("layer", "table")}
    for i in reversed(range(len(nodes))):
        if any(b in kept for b in successors[i]):
            kept.add(i)
    # Inputs were added after the tables that they are looked up in.
    order = sorted(kept, key=lambda i: (nodes[i].kind != "input", nodes[i].kind != "table", i))
    place = {old: new for new, old in enumerate(order)}
    chosen = [nodes[i] for i in order]
    pairs = [(place[a], place[b]) for a, b in forward if a in place and b in place]
    pairs = sorted(pair for pair in pairs if pair[0] < pair[1])
    before = defaultdict(list)
    for a, b in pairs:
        before[b].append(a)
    for b, node in enumerate(chosen):
        if node.kind == "join":  # it hands on all that comes in
            out = dict.fromkeys(s for a in before[b] for s in chosen[a].out if s[0])
            chosen[b] = Node(
                kind="join", name=node.name, text=node.text, into=tuple(out), out=tuple(out)
            )
    groups = [{group for group, _ in node.into if group} for node in chosen]
    flows = {
        (a, b): tuple(dict.fromkeys(g for g, _ in chosen[a].out if g in groups[b]))
        for a, b in pairs
    }
    return Flow(nodes=tuple(chosen), edges=flows)
