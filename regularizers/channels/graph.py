"""The channel graph of a function: its groups, what they are made of, and why the rest is fixed."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regularizers.channels import axes as ax
from regularizers.channels import jaxprs
from regularizers.channels.axes import Axis
from regularizers.channels.blocks import Block, find_blocks
from regularizers.channels.calls import Call, bind_call, flat_paths
from regularizers.channels.coupling import contraction
from regularizers.channels.dead import Use, find_dead
from regularizers.channels.exactness import find_inexact
from regularizers.channels.inference import Body, Inference, Step
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.roles import Roles, find_roles
from regularizers.channels.terms import Atom, Axes, Pin, Solver, atoms, freeze


@dataclass(frozen=True, kw_only=True)
class Member:
    """One axis of one variable that carries a group."""

    path: str
    axis: int
    produces: bool
    consumes: bool
    kind: str  # kernel, scale, shift, table; statistic where it is not trained

    def __str__(self) -> str:
        verb = " and ".join(v for v, on in self._verbs() if on)
        return f"{self.path} axis {self.axis} ({self.kind}, {verb})"

    def _verbs(self) -> tuple[tuple[str, bool], ...]:
        return (("produces", self.produces), ("consumes", self.consumes))


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A layer that sees a number in dead channels, which its bias can take.

    Attributes:
        kernel: the path of its kernel.
        axis: the kernel's axis along which the dead channels lie.
        free: the axes of the kernel that are those of the bias, in order.
        bias: the path of its bias.
        number: what a dead channel holds, e.g. 1/2 behind a sigmoid.
    """

    kernel: str
    axis: int
    free: tuple[int, ...]
    bias: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Axis positions over variables and activations that must keep the same width.

    Attributes:
        name: of the first layer that produces it.
        width: the number of channels.
        members: the axes of variables that carry it.
        exact: whether removing dead channels is the same as zeroing what produces them.
        why_inexact: why not, and where.
        folds: the layers whose biases can take what dead channels hold; then `ChannelGraph.fold`
            makes removing them exact.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    exact: bool
    why_inexact: str = ""
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One leaf of the variables: its seed shape and what its axes are made of."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[Axis, ...]
    produces: frozenset[int]  # axes
    consumes: frozenset[int]  # axes
    kind: str
    trained: bool


@dataclass(frozen=True, kw_only=True)
class PinnedAxis:
    """One axis of a variable, or a stretch of it, whose width is fixed."""

    path: str
    axis: int
    size: int


@dataclass(frozen=True, kw_only=True)
class PinGroup:
    """The axes that are fixed for one reason, at one line of the user's ("" where unknown)."""

    reason: str
    source: str
    axes: tuple[PinnedAxis, ...]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One matrix product or convolution: what the costs count.

    Attributes:
        kernel: the path of the kernel variable; empty for a product of activations.
        count: how often one call runs it: the length of the scans around it (a `while` counts
            once), and once on every device of a `shard_map`.
        branches: the (`cond`, branch) pairs that it stands in, of which one runs.
    """

    primitive: jaxprs.Primitive
    layer: str
    kernel: str
    lhs: tuple[Axis, ...]
    rhs: tuple[Axis, ...]
    out: tuple[Axis, ...]
    params: Mapping[str, Any] = field(repr=False)
    count: int = 1
    branches: tuple[tuple[int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ChannelGraph:
    """All that inference found out about a function.

    Attributes:
        groups: the channel groups that may be resized, by name, in the order of the function.
        variables: every leaf of the variables, by path, in the order of the tree.
        operations: its products and convolutions, in the order of the function.
        unknown: primitives without a rule, with the user's source line of the first use.
        body: all equations with the terms of their operands and results; for further analyses.
        operation_steps: for each of `operations`, the `id` of its step in `body`.
    """

    groups: Mapping[str, Group]
    variables: Mapping[str, Variable]
    operations: tuple[Operation, ...]
    unknown: Mapping[str, str]
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
                            lines[atom.pin] = jaxprs.source_line(atom.pin.source)
                        axis = PinnedAxis(path=variable.path, axis=k, size=atom.size)
                        found.setdefault((atom.pin.reason, lines[atom.pin]), {})[axis] = None
        groups = [
            PinGroup(reason=reason, source=source, axes=tuple(axes))
            for (reason, source), axes in found.items()
        ]
        return tuple(sorted(groups, key=lambda group: -len(group.axes)))

    def explain(self, path: str) -> str:
        """Why the axes of a variable (or the members of a group) are what they are.

        Args:
            path: the path of a variable, with or without its collection, or a group's name.

        Raises:
            KeyError: if nothing has this name; the message lists near matches.
        """
        if path in self.groups:
            group = self.groups[path]
            lines = [f"group {path}: width {group.width}, {'exact' if group.exact else 'inexact'}"]
            lines += [f"  {member}" for member in group.members]
            return "\n".join([*lines, *([f"  {group.why_inexact}"] if group.why_inexact else [])])
        variable = self.variables[self._find(path)]
        position = list(self.variables).index(variable.path)
        lines = [f"{variable.path}  {variable.dtype}{list(variable.shape)}"]
        for k, (axis, term) in enumerate(zip(variable.axes, self._terms[position], strict=True)):
            names = list(dict.fromkeys(ax.groups_of(axis)))
            verbs = [
                verb
                for verb, on in (("produces", variable.produces), ("consumes", variable.consumes))
                if k in on
            ]
            if names:
                lines.append(f"  axis {k}: {variable.shape[k]} = {axis}, {' and '.join(verbs)}")
            reasons = {atom.pin.reason: atom.pin for atom in atoms(term) if atom.pin is not None}
            for reason, pin in reasons.items():
                where = jaxprs.source_line(pin.source)
                at = f"  [{where}]" if where else ""
                lines.append(f"  axis {k}: {variable.shape[k]}, fixed: {reason}{at}")
        return "\n".join(lines)

    def mask(self, variables: Any, alive: Mapping[str, Any], removed: Collection[str] = ()) -> Any:
        """`variables` with the producers of dead channels set to zero.

        Args:
            variables: a tree with the structure that was traced.
            alive: for some groups, bool [width]: which channels are alive. Others are all alive.
            removed: names of `blocks` that are silenced: all their parameters become zero.

        Raises:
            KeyError: if a group or block is unknown.
            ValueError: if a mask or the variables do not fit.
        """
        flags = self.check_alive(alive)
        silent = {path for block in self.check_removed(removed) for path in block.variables}
        leaves, treedef = self.leaves(variables)
        masked = []
        for leaf, variable in zip(leaves, self.variables.values(), strict=True):
            if variable.path in silent and variable.trained:
                leaf = jnp.zeros_like(leaf)
            for k in sorted(variable.produces):
                if any(not flags[name].all() for name in ax.groups_of(variable.axes[k])):
                    leaf = _zeroed(leaf, k, ~ax.alive_positions(variable.axes[k], flags))
            masked.append(leaf)
        return jax.tree.unflatten(treedef, masked)

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
        leaves, treedef = self.leaves(self.mask(variables, alive))
        values = dict(zip(self.variables, leaves, strict=True))
        for name, group in self.groups.items():
            for fold in group.folds if not flags[name].all() else ():
                kernel = values[fold.kernel]
                others = {n: f if n == name else np.ones_like(f) for n, f in flags.items()}
                keep = ax.alive_positions(self.variables[fold.kernel].axes[fold.axis], others)
                summed = tuple(k for k in range(kernel.ndim) if k not in fold.free)
                added = fold.number * _zeroed(kernel, fold.axis, keep).sum(summed)
                bias = values[fold.bias]
                values[fold.bias] = bias + added.reshape(bias.shape).astype(bias.dtype)
                values[fold.kernel] = _zeroed(kernel, fold.axis, ~keep)
        return self.mask(jax.tree.unflatten(treedef, list(values.values())), alive)

    def leaves(self, variables: Any) -> tuple[list[Any], Any]:
        """The leaves of `variables`, checked against the graph, and the tree's structure.

        Raises:
            ValueError: if paths or shapes differ from those that were traced.
        """
        paths, leaves, treedef = flat_paths(variables)
        check_fit(paths, leaves, {v.path: v.shape for v in self.variables.values()})
        return leaves, treedef

    def check_alive(self, alive: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """`alive` as one bool array per group, checked."""
        flags = {name: np.ones(group.width, bool) for name, group in self.groups.items()}
        for name, given in alive.items():
            if name not in self.groups:
                raise KeyError(f"no channel group {name!r}{near(name, self.groups)}")
            mask = np.array(given)
            if mask.dtype != bool or mask.shape != flags[name].shape:
                raise ValueError(
                    f"group {name!r} has {self.groups[name].width} channels: alive must be "
                    f"bool[{self.groups[name].width}], found {mask.dtype}{list(mask.shape)}"
                )
            flags[name] = mask
        return flags

    def check_removed(self, removed: Collection[str]) -> tuple[Block, ...]:
        """The blocks of these names, in the order of the network.

        Raises:
            KeyError: if one is unknown. ValueError: if nothing of a concatenation would be left.
        """
        names = {removed} if isinstance(removed, str) else set(removed)
        for name in names:
            if name not in self.blocks:
                raise KeyError(f"no block {name!r}{near(name, self.blocks)}")
            rivals = self.blocks[name].rivals
            if rivals and names.issuperset(rivals):
                raise ValueError(
                    f"cannot remove {', '.join(map(repr, rivals))}: nothing would be left of what "
                    "they are concatenated to; keep one of them."
                )
        return tuple(block for name, block in self.blocks.items() if name in names)

    def exact_with(self, paths: Collection[str]) -> frozenset[str]:
        """The groups that are exactly dead once the producers among `paths` are zero."""
        known = self._exact_with.get(frozenset(paths))
        if known is None:
            zeroed = [v.produces if v.path in paths else () for v in self.variables.values()]
            known = frozenset(self.groups) - _inexact(self.body, self._atoms, zeroed)[0].keys()
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
        inexact = _inexact(self.body, named, produces, lambda i, name: order[i] in paths[name])[0]
        return frozenset(named) - inexact.keys()

    def _find(self, path: str) -> str:
        if path in self.variables:
            return path
        matches = [own for own in self.variables if own.split("/", 1)[-1] == path]
        if len(matches) != 1:
            names = [*self.groups, *self.variables]
            raise KeyError(f"no variable or group {path!r}{near(path, names)}")
        return matches[0]

    def __str__(self) -> str:
        return "\n".join(_table(self))


def _zeroed(leaf: Any, axis: int, dead: np.ndarray) -> Any:
    """The array with zeros at some positions [length] of an axis."""
    where = dead.reshape([-1 if k == axis else 1 for k in range(np.ndim(leaf))])
    return jnp.where(where, jnp.zeros((), leaf.dtype), leaf)


def trace_channels(
    fn: Callable[..., Any],
    variables: Any,
    *inputs: Any,
    prunable: str | Sequence[str] = (),
    pinned: str | Sequence[str] = (),
    **static: Any,
) -> ChannelGraph:
    """Infers which channels of `fn` belong together.

    Args:
        fn: any JAX function `fn(variables, *inputs, **static)`, e.g. a Linen `model.apply` or the
            function of `nnx_function`. It is traced, not run.
        variables: a tree of arrays or `jax.ShapeDtypeStruct`s.
        *inputs: its further arguments; arrays, structs, or trees of them.
        prunable: patterns of layers or variables, e.g. `"backbone"` or `"*/Conv_*"`. If given, only
            widths that none but these produce may change; what consumes them may lie elsewhere.
        pinned: patterns of layers or variables, e.g. a frozen subtree, of which no axis may change.
        **static: keyword arguments. Arrays in them are inputs, all else is passed as it is.

    Returns:
        The graph of channel groups. All inputs and outputs keep their widths, except outputs
        that are an update of a variable (same path, e.g. batch statistics).

    Raises:
        ValueError: if `variables` holds no arrays, the output does not depend on them, or a pattern
            matches nothing.
        TypeError: if a leaf of `variables` is not an array, or JAX cannot trace `fn`.

    Example:
        >>> import flax.linen as nn, jax
        >>> model, x = nn.Sequential([nn.Dense(16), nn.relu, nn.Dense(3)]), jax.numpy.ones((1, 8))
        >>> graph = trace_channels(model.apply, model.init(jax.random.key(0), x), x)
        >>> graph.widths
        {'layers_0': 16}
    """
    call = bind_call(fn, variables, inputs, static)
    closed, outputs = call.trace(call.structs)
    inference = Inference()
    solver = inference.solver
    terms = tuple(inference.fresh_axes(leaf.shape) for leaf in call.variables)
    given = tuple(
        tuple(solver.fixed(n, "axis of an input") for n in struct.shape)
        for struct in call.structs[len(terms) :]
    )
    body = inference.run(closed, [*terms, *given])
    solver.source = None
    roles = find_roles(body, call.trained)
    if not roles.order:
        raise ValueError(
            "the output does not depend on any of the variables; asked to trace "
            f"{getattr(fn, '__qualname__', fn)!r} with {len(terms)} arrays. "
            "Pass a function fn(variables, *inputs) that uses its first argument."
        )
    for path, axes in zip(flat_paths(outputs)[0], body.outputs, strict=True):
        own = updated_variable(path, axes, call, terms)
        for k, term in enumerate(axes):
            if own is None:
                solver.pin(term, "axis of an output")
            else:
                solver.unify(term, terms[own][k])
    _pin_patterns(call.paths, terms, roles, solver, prunable, pinned)
    return _assemble(call, inference, terms, body, roles)


def _pin_patterns(
    paths: Sequence[str],
    terms: Sequence[Axes],
    roles: Roles,
    solver: Solver,
    prunable: str | Sequence[str],
    pinned: str | Sequence[str],
) -> None:
    """Pins what the user's patterns say."""
    for i in matching(pinned, paths, "pinned"):
        for term in terms[i]:
            solver.pin(term, "pinned by the user")
    allowed = matching(prunable, paths, "prunable")
    for i, k in sorted(roles.produces | roles.reduced) if prunable else ():
        if i not in allowed:
            solver.pin(terms[i][k], "produced by a layer that the user did not list as prunable")


def matching(patterns: str | Sequence[str], paths: Sequence[str], what: str) -> set[int]:
    """The positions of the paths that match a pattern, as a whole or up to a `/`.

    Patterns are those of `fnmatch`, with or without the collection: `Block_*`, `params/head/bias`.

    Raises:
        TypeError: if they are no patterns.
        ValueError: if a pattern matches nothing; the message lists near matches.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, list | tuple) or not all(
        isinstance(pattern, str) for pattern in listed
    ):
        raise TypeError(
            f"{what} must be a pattern or a list of them, e.g. {what}='backbone', found "
            f"{patterns!r}. (A keyword of this name of your own function: use functools.partial.)"
        )
    found: set[int] = set()
    for pattern in listed:
        matches = {i for i, path in enumerate(paths) if _matches(path, pattern)}
        if not matches:
            known = dict.fromkeys(name for path in paths for name in _names(path))
            raise ValueError(
                f"{what}={pattern!r} matches no layer or variable{near(pattern, known)}"
            )
        found |= matches
    return found


def _matches(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern.rstrip("/")) for name in _names(path))


def _names(path: str) -> Iterator[str]:
    """The path and the modules that it lies in, with and without the collection."""
    parts = path.split("/")
    for start in (1, 0):
        for stop in range(start + 1, len(parts) + 1):
            yield "/".join(parts[start:stop])


def updated_variable(
    path: str, axes: Sequence[Any], call: Call, terms: Sequence[Sequence[Any]]
) -> int | None:
    """The variable that an output is an update of: it ends with its path, and has its shape.

    Only variables that are not trained are updated so, e.g. `batch_stats/BatchNorm_0/mean`.
    """
    parts = path.split("/")
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if tail in call.paths:
            i = call.paths.index(tail)
            if not call.trained[i] and [t.size for t in terms[i]] == [t.size for t in axes]:
                return i
    return None


def _assemble(
    call: Call, inference: Inference, terms: tuple[Axes, ...], body: Body, roles: Roles
) -> ChannelGraph:
    """Names the groups and freezes everything."""
    produced = {
        atom
        for i, k in roles.produces | roles.reduced
        for atom in atoms(terms[i][k])
        if call.is_float(i)
    }
    for axes in terms:
        for term in axes:
            for atom in atoms(term):
                if atom not in produced and atom.pin is None:
                    inference.solver.pin(atom, "no variable produces it, so it cannot be zeroed")
    named = _name_groups(call, terms, roles)
    for name, atom in named.items():
        atom.name = name
    variables = {
        path: Variable(
            path=path,
            shape=tuple(leaf.shape),
            dtype=str(leaf.dtype),
            axes=tuple(map(freeze, axes)),
            produces=frozenset(
                k
                for k, term in enumerate(axes)
                if (i, k) in roles.produces
                or ((i, k) in roles.reduced and any(atom.name for atom in atoms(term)))
            ),
            consumes=frozenset(k for k in range(len(axes)) if (i, k) in roles.consumes),
            kind=roles.kind.get(i, "unused") if call.trained[i] else "statistic",
            trained=call.trained[i] and call.is_float(i),
        )
        for i, (path, leaf, axes) in enumerate(zip(call.paths, call.variables, terms, strict=True))
    }
    inexact, uses, closed = _inexact(body, named, [v.produces for v in variables.values()])
    if closed:
        # A head with values of others' (grouped queries) has no producer whose zeros silence it:
        # the rows that take it in are what must be zero.
        for i, k in closed:
            path = call.paths[i]
            variables[path] = replace(variables[path], produces=variables[path].produces | {k})
        inexact, uses, _ = _inexact(body, named, [v.produces for v in variables.values()])
    order = [call.paths[i] for i in roles.order]
    used = set(order)
    in_order = [variables[path] for path in order]
    in_order += [v for path, v in variables.items() if path not in used]
    members: dict[str, list[Member]] = {name: [] for name in named}
    for v in in_order:
        for k, axis in enumerate(v.axes):
            member = Member(
                path=v.path,
                axis=k,
                produces=k in v.produces,
                consumes=k in v.consumes,
                kind=v.kind,
            )
            for name in dict.fromkeys(ax.groups_of(axis)):
                members[name].append(member)
    groups = {
        name: Group(
            name=name,
            width=atom.size,
            members=tuple(members[name]),
            exact=name not in inexact,
            why_inexact=inexact.get(name, ""),
            folds=tuple(
                Fold(
                    kernel=call.paths[use.kernel],
                    axis=use.axis,
                    free=use.free,
                    bias=call.paths[use.bias],
                    number=use.number,
                )
                for use in uses.get(name, ())
            ),
        )
        for name, atom in named.items()
    }
    operations = list(_operations(body, roles, call.paths))
    return ChannelGraph(
        groups=groups,
        variables=variables,
        operations=tuple(operation for _, operation in operations),
        unknown={
            primitive.name: jaxprs.source_line(source)
            for primitive, source in inference.unknown.items()
        },
        body=body,
        operation_steps=tuple(step for step, _ in operations),
        _terms=terms,
        _atoms=named,
    )


def _name_groups(call: Call, terms: Sequence[Axes], roles: Roles) -> dict[str, Atom]:
    """Every free atom by the name of the first layer that produces it.

    Several groups of one layer are told apart by axis, several of one axis by position:
    `query[1]`, `query[2]`, `qkv[1.0]`; those of several variables alike by variable: `in`, `out`.
    """
    first: dict[Atom, tuple[str, int, int]] = {}
    for i in sorted(roles.order, key=lambda i: not call.trained[i]):  # statistics last
        for k in sorted(range(len(terms[i])), reverse=True):
            if (i, k) in roles.produces | roles.reduced:
                for part, atom in enumerate(atoms(terms[i][k])):
                    if atom.pin is None:
                        first.setdefault(atom, (call.paths[i], k, part))
    layers = {atom: layer_name(path) for atom, (path, _, _) in first.items()}
    places = Counter((layers[atom], k, part) for atom, (_, k, part) in first.items())
    for atom, (path, k, part) in first.items():
        if places[layers[atom], k, part] > 1:
            layers[atom] = path.removeprefix("params/")
    taken: dict[str, list[Atom]] = {}
    for atom, layer in layers.items():
        taken.setdefault(layer, []).append(atom)
    named: dict[str, Atom] = {}
    for atom, (_, k, part) in first.items():
        layer = layers[atom]
        on_axis = [a for a in taken[layer] if first[a][1] == k]
        suffix = f"[{k}]" if len(on_axis) == 1 else f"[{k}.{part}]"
        named[layer if len(taken[layer]) == 1 else layer + suffix] = atom
    return named


def layer_name(path: str) -> str:
    """`params/Block_0/Conv_0/kernel` -> `Block_0/Conv_0`."""
    parts = path.split("/")
    if len(parts) > 1 and parts[0] == "params":
        parts = parts[1:]
    return "/".join(parts[:-1] if len(parts) > 1 else parts)


def _inexact(
    body: Body,
    named: Mapping[str, Atom],
    produces: Sequence[Collection[int]],
    wanted: Callable[[int, str], bool] = lambda variable, group: True,
) -> tuple[dict[str, str], dict[str, list[Use]], set[tuple[int, int]]]:
    """The groups that are not exact when the given axes are zeroed.

    Args:
        body: the inferred function.
        named: the groups.
        produces: the axes of every variable.
        wanted: whether those of variable i are zeroed for a group.

    Returns:
        The reason for each; what biases can take of those that can be folded; and the axes of
        variables, (position, axis), that would have to be zeroed for the others to be exact.
    """
    groups = set(named.values())
    names = {atom: name for name, atom in named.items()}
    zeroed = [
        frozenset((k, atom) for k, atom in pairs if wanted(i, names[atom]))
        for i, pairs in enumerate(zeroed_pairs(body, groups, produces))
    ]
    exactness = find_inexact(body, groups, zeroed)
    reasons: dict[str, str] = {}
    uses: dict[str, list[Use]] = {}
    closed: set[tuple[int, int]] = set()
    if not exactness.reasons:
        return reasons, uses, closed
    dead = find_dead(body, exactness, len(produces))
    for name, atom in named.items():
        if atom in dead.reasons:
            reason, source = dead.reasons[atom]
            where = jaxprs.source_line(source)
            reasons[name] = f"{reason} [{where}]" if where else reason
        elif atom in dead.closable:
            closed |= dead.closable[atom]
            reasons[name] = "its dead channels are not zero where kernels take them in"
        elif atom in dead.uses:
            uses[name] = dead.uses[atom]
            number = uses[name][0].number
            reasons[name] = f"its dead channels are {number:.6g}; biases can take it, by graph.fold"
    return reasons, uses, closed


def zeroed_pairs(
    body: Body, groups: Collection[Atom], produces: Sequence[Collection[int]]
) -> list[frozenset[tuple[int, Atom]]]:
    """For each input of `body`, the (axis, group) whose dead slices are zero."""
    zeroed = [
        frozenset((k, atom) for k in own for atom in atoms(axes[k]) if atom in groups)
        for own, axes in zip(produces, body.inputs, strict=False)
    ]
    return zeroed + [frozenset()] * (len(body.inputs) - len(zeroed))


def _operations(
    body: Body,
    roles: Roles,
    paths: Sequence[str],
    count: int = 1,
    branches: tuple[tuple[int, int], ...] = (),
) -> Iterator[tuple[int, Operation]]:
    """The operations in order, each with the identity of its step."""
    for step in body.steps:
        if step.bodies:
            times = count * trips(step)
            is_branch = step.primitive is p.cond_p
            for i, inner in enumerate(step.bodies):
                choice = (*branches, (id(step), i)) if is_branch else branches
                yield from _operations(inner, roles, paths, times, choice)
        elif step.primitive in contraction.RULES:
            lhs, rhs = (tuple(map(freeze, operand)) for operand in step.operands[:2])
            kernel = next((paths[i] for i in roles.kernels.get(id(step), ())), "")
            operation = Operation(
                primitive=step.primitive,
                layer=layer_name(kernel) if kernel else jaxprs.scope(step.eqn) or "product",
                kernel=kernel,
                lhs=lhs,
                rhs=rhs,
                out=tuple(map(freeze, step.results[0])),
                params=step.eqn.params,
                count=count,
                branches=branches,
            )
            yield id(step), operation


def trips(step: Step) -> int:
    """How often a step runs its jaxprs; a `while` counts once, since nobody knows."""
    if step.primitive is p.scan_p:
        return int(step.eqn.params["length"])
    if step.primitive is jaxprs.shard_map_p:
        return int(step.eqn.params["mesh"].size)
    return 1


def check_fit(
    paths: Sequence[str], leaves: Sequence[Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises a ValueError that names the first leaf that is missing, extra or misshapen."""
    for path, leaf in zip(paths, leaves, strict=True):
        if path not in expected:
            raise ValueError(
                f"the variables do not fit the graph: {path!r} was not among those that were "
                f"traced{near(path, expected)}. Trace the graph with these variables."
            )
        if tuple(np.shape(leaf)) != expected[path]:
            raise ValueError(
                f"the variables do not fit the graph: {path!r} was traced with shape "
                f"{list(expected[path])}, found {list(np.shape(leaf))}."
            )
    found = set(paths)
    missing = [path for path in expected if path not in found]
    if missing:
        raise ValueError(
            f"the variables do not fit the graph: {missing[0]!r} is missing "
            f"({len(missing)} of {len(expected)} leaves are)."
        )


def near(name: str, known: Collection[str]) -> str:
    """The end of an error message: names close to `name`, or the first few known ones."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.4)
    if close:
        return "; did you mean " + " or ".join(map(repr, close)) + "?"
    some = ", ".join(map(repr, list(known)[:6]))
    return f"; known are {some}{', ...' if len(known) > 6 else ''}"


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
