"""The channel graph of a function: its groups, what they are made of, and why the rest is fixed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels.blocks import Block, find_blocks
from regularizers.channels.calls import flat_paths
from regularizers.channels.flax_values import RANDOM
from regularizers.channels.parts import Group, PinGroup, PinnedAxis, Variable, layer_name, verbs
from regularizers.channels.zeroed import judge
from regularizers.checks import FLAG, NAME, NAMES, a, checked, shown
from regularizers.errors import InputError, InputTypeError, UnknownNameError
from regularizers.messages import near
from regularizers.primitives import axes as ax
from regularizers.primitives import jaxprs
from regularizers.primitives.sources import source_frames, source_line
from regularizers.primitives.step import Body, Operation
from regularizers.primitives.terms import Atom, Axes, Pin, atoms


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """All that inference found out about a function.

    Attributes:
        groups: the channel groups that may be resized, by name, in the order of the function.
        variables: every leaf of the variables, by path, in the order of the tree.
        operations: its products and convolutions, in the order of the function.
        unknown: primitives without a rule, with the user's source line of the first use.
        uncounted: the work without a price that no cost counts: (name scope, primitive).
        body: all equations with the terms of their operands and results; for further analyses.
        operation_steps: for each of `operations`, the `id` of its step in `body`.
    """

    groups: Mapping[str, Group]
    variables: Mapping[str, Variable]
    operations: tuple[Operation, ...]
    unknown: Mapping[str, str]
    uncounted: tuple[tuple[str, str], ...]
    body: Body = field(repr=False)
    operation_steps: tuple[int, ...] = field(repr=False)
    _terms: tuple[Axes, ...] = field(repr=False)
    _atoms: Mapping[str, Atom] = field(repr=False)
    _exact_with: dict[frozenset[str], frozenset[str]] = field(default_factory=dict, repr=False)

    @property
    def widths(self) -> dict[str, int]:
        """The seed width of every group."""
        return {name: group.width for name, group in self.groups.items()}

    @cached_property
    def blocks(self) -> dict[str, Block]:
        """The branches that can go as a whole, by name, in the order of the function."""
        layers = dict(zip(self.operation_steps, self.operations, strict=True))
        return find_blocks(
            self.body,
            list(self.variables),
            [variable.trained for variable in self.variables.values()],
            {
                name: {member.path for member in group.members if member.produces}
                for name, group in self.groups.items()
            },
            {self._atoms[name] for name, group in self.groups.items() if group.exact},
            lambda step: layers[id(step)].layer if id(step) in layers else None,
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that have an operation, in the order of the function."""
        return tuple(dict.fromkeys(operation.layer for operation in self.operations))

    @property
    def jaxpr(self) -> jaxprs.Jaxpr:
        """The function that was traced, of flat arrays: the variables, then the inputs."""
        return self.body.jaxpr

    def pins(self) -> tuple[PinGroup, ...]:
        """All fixed axes of variables but those of size 1, the most frequent reason first."""
        found: dict[tuple[str, str], dict[PinnedAxis, None]] = {}
        lines: dict[Pin, str] = {}
        for variable, terms in zip(self.variables.values(), self._terms, strict=True):
            for k, term in enumerate(terms):
                for atom in atoms(term):
                    if atom.pin is not None and atom.size > 1:
                        if atom.pin not in lines:
                            lines[atom.pin] = source_line(atom.pin.source)
                        axis = PinnedAxis(path=variable.path, axis=k, size=atom.size)
                        found.setdefault((atom.pin.reason, lines[atom.pin]), {})[axis] = None
        groups = [
            PinGroup(reason=reason, source=source, axes=tuple(axes))
            for (reason, source), axes in found.items()
        ]
        return tuple(sorted(groups, key=lambda group: -len(group.axes)))

    @checked(path=NAME, frames=FLAG)
    def explain(self, path: str, *, frames: bool = False) -> str:
        """Why the axes of a variable or a layer (or the members of a group) are what they are.

        Args:
            path: a group's name; or the path of a variable, or of a layer, with or without its
                collection.
            frames: show all frames behind a pin, of libraries, too, not just the user's own line.

        Raises:
            KeyError: if nothing has this name; the message lists near matches.
        """
        if path in self.groups:
            group = self.groups[path]
            lines = [f"group {path}: width {group.width}, {'exact' if group.exact else 'inexact'}"]
            lines += [f"  {member}" for member in group.members]
            if not group.exact:
                lines += [f"  {group.why_inexact}", f"  {INEXACT}"]
            return "\n".join(lines)
        return "\n".join(self._explain(own, frames) for own in self._find(path))

    def _explain(self, path: str, frames: bool) -> str:
        variable = self.variables[path]
        position = list(self.variables).index(path)
        lines = [f"{variable.path}  {variable.dtype}{list(variable.shape)}"]
        for k, (axis, term) in enumerate(zip(variable.axes, self._terms[position], strict=True)):
            names = list(dict.fromkeys(ax.groups_of(axis)))
            if names:
                verb = verbs(produces=k in variable.produces, consumes=k in variable.consumes)
                lines.append(f"  axis {k}: {variable.shape[k]} = {axis}, {verb}")
            reasons = {atom.pin.reason: atom.pin for atom in atoms(term) if atom.pin is not None}
            for reason, pin in reasons.items():
                where = source_line(pin.source)
                at = f"  [{where}]" if where else ""
                lines.append(f"  axis {k}: {variable.shape[k]}, fixed: {reason}{at}")
                lines += [f"    {frame}" for frame in source_frames(pin.source) if frames]
        return "\n".join(lines)

    def mask(self, variables: Any, alive: Mapping[str, Any], removed: Collection[str] = ()) -> Any:
        """`variables` with the producers of dead channels set to zero.

        Args:
            variables: what was traced, or only its `params`.
            alive: for some groups, bool [width]: which channels are alive. Others are all alive.
            removed: names of `blocks` that are silenced: all their parameters become zero.

        Raises:
            KeyError: if a group or block is unknown.
            ValueError: if a mask or the variables do not fit.
        """
        flags = self.check_alive(alive)
        silent = {path for block in self.check_removed(removed) for path in block.variables}
        leaves, treedef = self.leaves(variables)
        masked = [
            self._masked(self.variables[path], leaf, flags, silent)
            if path in self.variables
            else leaf
            for path, leaf in leaves.items()
        ]
        return jax.tree.unflatten(treedef, masked)

    def _masked(
        self,
        variable: Variable,
        leaf: Any,
        flags: Mapping[str, np.ndarray],
        silent: Collection[str],
    ) -> Any:
        if variable.path in silent and variable.trained:
            leaf = jnp.zeros_like(leaf)
        for k in sorted(variable.produces):
            if any(not flags[name].all() for name in ax.groups_of(variable.axes[k])):
                leaf = _zeroed(leaf, k, ~ax.alive_positions(variable.axes[k], flags))
        return leaf

    def fold(self, variables: Any, alive: Mapping[str, Any]) -> Any:
        """`mask`, and what dead channels add to a layer moved into the layer's bias.

        A dead channel that is a number other than zero, e.g. 1/2 behind a sigmoid, adds a constant
        to what consumes it. With that in the bias and the kernel's slice zero the function is the
        same as masked, and the channel can be removed: `morph.shrink(graph, alive, fold=True)`.

        Args:
            variables: a tree with the structure that was traced.
            alive: for some groups, bool [width]: which channels are alive. Others are all alive.

        Raises:
            KeyError: if a group is unknown.
            ValueError: if a mask or the variables do not fit.
        """
        flags = self.check_alive(alive)
        values, treedef = self.leaves(self.mask(variables, alive))
        for name, group in self.groups.items():
            for fold in group.folds if not flags[name].all() else ():
                kernel = values[fold.kernel]
                others = {n: f if n == name else np.ones_like(f) for n, f in flags.items()}
                keep = ax.alive_positions(self.variables[fold.kernel].axes[fold.axis], others)
                summed = tuple(k for k in range(kernel.ndim) if k not in fold.free)
                added = fold.number * _zeroed(kernel, fold.axis, keep).sum(summed)
                bias = values[fold.bias]
                values[fold.bias] = bias + added.reshape(bias.shape).astype(jnp.result_type(bias))
                values[fold.kernel] = _zeroed(kernel, fold.axis, ~keep)
        return self.mask(jax.tree.unflatten(treedef, list(values.values())), alive)

    def leaves(self, variables: Any) -> tuple[dict[str, Any], Any]:
        """The leaves of `variables` by path, in the tree's order, and the tree's structure.

        Only `params` will do where there are other collections.

        Raises:
            ValueError: if paths or shapes differ from those that were traced.
        """
        paths, leaves, treedef = flat_paths(variables)
        expected = {v.path: v.shape for v in self.variables.values()}
        full = [path if path in expected else f"params/{path}" for path in paths]
        only_params = bool(paths) and not any(p in expected for p in paths)
        if only_params and any(path in expected for path in full):
            paths = full
            expected = {p: shape for p, shape in expected.items() if p.startswith("params/")}
        check_fit(paths, leaves, expected)
        return dict(zip(paths, leaves, strict=True)), treedef

    def check_alive(self, alive: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`alive` as one bool array per group, checked."""
        if not isinstance(alive, Mapping):
            raise InputTypeError(
                "alive must be masks by channel group, e.g. as regularizer.alive(variables) gives "
                f"them, found {shown(alive)}"
            )
        flags = {name: np.ones(group.width, bool) for name, group in self.groups.items()}
        for name, given in alive.items():
            if name not in self.groups:
                raise UnknownNameError(f"no channel group {name!r}{near(name, self.groups)}")
            mask = np.array(given)
            if mask.dtype != bool or mask.shape != flags[name].shape:
                raise InputError(
                    f"group {name!r} has {self.groups[name].width} channels: alive must be "
                    f"bool[{self.groups[name].width}], found {mask.dtype}{list(mask.shape)}"
                )
            flags[name] = mask
        return flags

    @checked(removed=NAMES)
    def check_removed(self, removed: Collection[str]) -> tuple[Block, ...]:
        """The blocks of these names, in the order of the network.

        Raises:
            KeyError: if one is unknown. ValueError: if nothing of a concatenation would be left.
        """
        names = {removed} if isinstance(removed, str) else set(removed)
        for name in names:
            if name not in self.blocks:
                raise UnknownNameError(f"no block {name!r}{near(name, self.blocks)}")
            rivals = self.blocks[name].rivals
            if rivals and names.issuperset(rivals):
                raise InputError(
                    f"cannot remove {', '.join(map(repr, rivals))}: nothing would be left of what "
                    "they are concatenated to; keep one of them."
                )
        return tuple(block for name, block in self.blocks.items() if name in names)

    def exact_with(self, paths: Collection[str]) -> frozenset[str]:
        """The groups that are exactly dead once the producers among `paths` are zero."""
        known = self._exact_with.get(frozenset(paths))
        if known is None:
            zeroed = [v.produces if v.path in paths else () for v in self.variables.values()]
            known = frozenset(self.groups) - judge(self.body, self._atoms, zeroed).reasons.keys()
            self._exact_with[frozenset(paths)] = known
        return known

    def exact_with_own(self, paths: Mapping[str, Collection[str]]) -> frozenset[str]:
        """Of some groups, those that are exactly dead once the producers among *their* paths are.

        Args:
            paths: for each group, variables. Groups do not depend on one another.
        """
        named = {name: self._atoms[name] for name in paths}
        order = list(self.variables)
        produces = [v.produces for v in self.variables.values()]
        found = judge(self.body, named, produces, lambda i, name: order[i] in paths[name])
        return frozenset(named) - found.reasons.keys()

    def _find(self, path: str) -> list[str]:
        """The variable of this path, or those of the layer."""
        ends = {own: (own, own.split("/", 1)[-1]) for own in self.variables}
        matches = [own for own, names in ends.items() if path in names]
        matches = matches or [
            own for own, names in ends.items() if any(n.startswith(f"{path}/") for n in names)
        ]
        if not matches:
            known = [*self.groups, *self.variables]
            raise UnknownNameError(f"no variable, layer or group {path!r}{near(path, known)}")
        return matches

    def __str__(self) -> str:
        return "\n".join(_table(self))


GRAPH = a(ChannelGraph, "a channel graph, as reg.trace_channels gives one")
INEXACT = (
    "to remove its channels all the same, at the cost of what they hold when dead: "
    "morph.shrink(graph, alive, inexact=True), reg.NetworkRegularizer(..., inexact=True)"
)


def _zeroed(leaf: Any, axis: int, dead: np.ndarray) -> Any:
    """The array with zeros at some positions [length] of an axis."""
    where = dead.reshape([-1 if k == axis else 1 for k in range(np.ndim(leaf))])
    return jnp.where(where, jnp.zeros_like(leaf, shape=()), leaf)


def check_fit(
    paths: Sequence[str], leaves: Sequence[Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises a ValueError that names the first leaf that is missing, extra or misshapen."""
    for path, leaf in zip(paths, leaves, strict=True):
        if path not in expected and path.startswith(f"{RANDOM}/"):
            continue
        if path not in expected:
            raise InputError(
                f"the variables do not fit the graph: {path!r} was not among those that were "
                f"traced{near(path, expected)}. Trace the graph with these variables."
            )
        if tuple(np.shape(leaf)) != expected[path]:
            raise InputError(
                f"the variables do not fit the graph: {path!r} was traced with shape "
                f"{list(expected[path])}, found {list(np.shape(leaf))}."
            )
    found = set(paths)
    missing = [p for p in expected if p not in found and not p.startswith(f"{RANDOM}/")]
    if missing:
        raise InputError(
            f"the variables do not fit the graph: {missing[0]!r} is missing "
            f"({len(missing)} of {len(expected)} leaves are)."
        )


def _table(graph: ChannelGraph) -> Iterator[str]:
    rows = [("group", "width", "exact", "produced by", "consumed by")]
    for group in graph.groups.values():
        shown = [m for m in group.members if m.kind != "statistic"]
        made = list(dict.fromkeys(layer_name(m.path) for m in shown if m.produces))
        used = list(dict.fromkeys(layer_name(m.path) for m in shown if m.consumes))
        exact = "yes" if group.exact else "no"
        rows.append((group.name, str(group.width), exact, _short(made), _short(used)))
    columns = [max(len(row[c]) for row in rows) for c in range(5)]
    for row in rows:
        cells = [
            cell.rjust(w) if c == 1 else cell.ljust(w)
            for c, (cell, w) in enumerate(zip(row, columns, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    for name, where in graph.unknown.items():
        yield f"no rule for {name}: all that it touches is pinned [{where}]"


def _short(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", +{len(names) - most}" if len(names) > most else "")
