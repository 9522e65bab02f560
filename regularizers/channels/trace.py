"""From a function to its channel graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from regularizers.channels.calls import Call, bind_call, flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.inference import Inference, trips
from regularizers.channels.parts import UNUSED, Fold, Group, Member, Variable, layer_name
from regularizers.channels.roles import Roles, find_roles
from regularizers.channels.zeroed import settle
from regularizers.checks import FUNCTION, NAMES, checked
from regularizers.errors import InputError
from regularizers.patterns import matching
from regularizers.primitives import axes as ax
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import UNCOUNTED
from regularizers.primitives.sources import source_line
from regularizers.primitives.step import Body, Operation, Step
from regularizers.primitives.table import RECORDS
from regularizers.primitives.terms import Atom, Axes, Solver, atoms, freeze


@checked(fn=FUNCTION, prunable=NAMES, pinned=NAMES)
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
    updates = [
        updated_variable(path, axes, call, terms)
        for path, axes in zip(flat_paths(outputs)[0], body.outputs, strict=True)
    ]
    ends = zip(updates, body.jaxpr.outvars, strict=True)
    same = {i for i, (own, v) in enumerate(ends) if own is not None and v is body.jaxpr.invars[own]}
    roles = find_roles(body, call.trained, same)
    if not roles.order:
        raise InputError(
            "the output does not depend on any of the variables; asked to trace "
            f"{getattr(fn, '__qualname__', fn)!r} with {len(terms)} arrays. "
            "Pass a function fn(variables, *inputs) that uses its first argument."
        )
    follows = list(call.trained)
    for own, axes in zip(updates, body.outputs, strict=True):
        if own is not None:
            follows[own] = True  # e.g. a cache: it is written from what is masked
        for k, term in enumerate(axes):
            if own is None:
                solver.pin(term, "axis of an output")
            else:
                solver.unify(term, terms[own][k])
    _pin_patterns(call.paths, terms, roles, solver, prunable, pinned)
    return _assemble(call, inference, terms, body, roles, follows)


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
    call: Call,
    inference: Inference,
    terms: tuple[Axes, ...],
    body: Body,
    roles: Roles,
    follows: Sequence[bool],
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
            kind=_kind(roles.kind.get(i), call.trained[i]),
            trained=call.trained[i] and call.is_float(i),
        )
        for i, (path, leaf, axes) in enumerate(zip(call.paths, call.variables, terms, strict=True))
    }
    produces = [v.produces for v in variables.values()]
    produces, verdict = settle(body, named, produces, follows, roles.divisors)
    for path, axes_zeroed in zip(call.paths, produces, strict=True):
        variables[path] = replace(variables[path], produces=axes_zeroed)
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
            exact=name not in verdict.reasons,
            why_inexact=verdict.reasons.get(name, ""),
            folds=tuple(
                Fold(
                    kernel=call.paths[use.kernel],
                    axis=use.axis,
                    free=use.free,
                    bias=call.paths[use.bias],
                    number=use.number,
                )
                for use in verdict.uses.get(name, ())
            ),
        )
        for name, atom in named.items()
    }
    operations = list(_operations(body, roles, call.paths))
    return ChannelGraph(
        groups=groups,
        variables=variables,
        operations=tuple(operation for _, operation in operations),
        uncounted=tuple(dict.fromkeys(_uncounted(body))),
        unknown={
            primitive.name: source_line(source) for primitive, source in inference.unknown.items()
        },
        body=body,
        operation_steps=tuple(step for step, _ in operations),
        _terms=terms,
        _atoms=named,
    )


def _kind(met: str | None, trained: bool) -> str:
    """What a variable is, from what it first met: a statistic, if nobody trains it."""
    if met is None:
        return UNUSED
    return met if trained else "statistic"


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
        elif (record := RECORDS.get(step.primitive)) is not None and record.contracts:
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


def _uncounted(body: Body) -> Iterator[tuple[str, str]]:
    """The primitives whose work no cost counts, each with the layer that runs it."""
    for step in body.steps:
        for inner in step.bodies:
            yield from _uncounted(inner)
        if not step.bodies and _is_uncounted(step):
            yield jaxprs.scope(step.eqn), step.primitive.name


def _is_uncounted(step: Step) -> bool:
    """Whether a step may be a contraction whose price nobody said.

    Without a record nobody knows what is computed; with one, what sums an axis of one of several
    arrays away is like a product.
    """
    record = RECORDS.get(step.primitive)
    arrays = [axes for axes in step.operands if any(term.size > 1 for term in axes)]
    if record is None:
        return bool(arrays) and bool(step.results)
    if record.price is not None:
        return record.price is UNCOUNTED
    gone = [
        not to
        for axes, targets in zip(step.operands, step.to or (), strict=False)
        for term, to in zip(axes, targets, strict=True)
        if term.size > 1
    ]
    return len(arrays) > 1 and any(gone)
