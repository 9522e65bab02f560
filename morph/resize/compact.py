"""`compact(fn, architecture)`: the same function on resized variables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from morph.architecture.architecture import ARCHITECTURE, Architecture
from morph.architecture.removed import without
from morph.kernels.compressed import unpacked
from morph.kernels.tensorized import tensorized
from morph.resize.evaluate import Plan, evaluate
from morph.resize.lacking import Lacking
from morph.resize.silence import find_silence
from morph.resize.sizes import Sizes, thaw
from regularizers.channels.calls import Call, abstract, bind_call, check_function, flat_paths
from regularizers.channels.dead import find_dead
from regularizers.channels.exactness import find_inexact
from regularizers.channels.flax_values import RANDOM
from regularizers.channels.inference import Inference
from regularizers.channels.means import find_means
from regularizers.channels.parts import UNUSED
from regularizers.channels.trace import updated_variable
from regularizers.channels.zeroed import zeroed_inputs
from regularizers.checks import FLAG, FUNCTION, checked
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.primitives.axes import size
from regularizers.primitives.sources import source_line
from regularizers.primitives.step import Body
from regularizers.primitives.terms import Atom, Axes, atoms, find

PLANS = 64  # that a function keeps, one per call signature


@checked(fn=FUNCTION, architecture=ARCHITECTURE, rescale_means=FLAG)
def compact(
    fn: Callable[..., Any], architecture: Architecture, *, rescale_means: bool = False
) -> Callable[..., Any]:
    """`fn` at the widths of `architecture`: a function with fn's signature on small variables.

    When called it traces `fn` abstractly at the seed's shapes, infers the channels of that very
    call (any batch size, train or eval mode) and evaluates it again at the new widths. It composes
    with `jit`, `grad` and `vmap`; derivative rules and remat survive; an output that carries a
    group, e.g. updated batch statistics, comes out resized. Calls of the same shapes share a trace.

    If kernels of the architecture are factorized they are contracted core by core, as
    `morph.tensorized` does; compressed kernels are made dense.

    Args:
        fn: the function that the architecture was inferred from, or another one of the same
            variables (e.g. in train mode).
        architecture: what every group became; see `morph.shrink` and `morph.expand`.
        rescale_means: divide sums over resized axes by their own length, as a network that is
            written at these widths does. Without it means divide as the architecture says:
            by the seed's widths, so that removing channels that are zero leaves the function as it
            is, or by those of its last expansion from scratch. Set it for variables that are drawn
            afresh.

    Returns:
        `small_fn(variables, *inputs, **static)`, where `variables = architecture.take(...)`.

    Raises:
        TypeError: if these are no function of variables and an architecture.
        ValueError: when called, if the variables do not have the architecture's shapes, or if this
            call of `fn` ties or fixes a width that the architecture changed.
    """
    check_function(fn)
    plans: dict[Hashable, tuple[Plan, Any, frozenset[int], dict[int, Axes]]] = {}

    @functools.wraps(fn)
    def small_fn(variables: Any, *inputs: Any, **static: Any) -> Any:
        variables = unpacked(variables)
        call = bind_call(fn, architecture.restored(variables), inputs, static)
        key = call.signature
        known = plans.get(key) if key is not None else None
        plan, out_tree, dropped, late = known or _plan(
            call, architecture, rescale_means, plans.clear
        )
        if key is not None:
            if len(plans) >= PLANS:
                del plans[next(iter(plans))]  # the oldest
            plans[key] = plan, out_tree, dropped, late
        leaves = iter(jax.tree.leaves(variables))
        given = [None if path in architecture.gone else next(leaves) for path in call.paths]
        for i, axes in late.items():
            given[i] = plan.sizes.slice(given[i], axes)
        results = evaluate(plan, plan.body, [*given, *call.arrays])
        return without(jax.tree.unflatten(out_tree, results), dropped)

    return tensorized(small_fn) if architecture.factorized else small_fn


def _plan(
    call: Call, architecture: Architecture, rescale_means: bool, forget: Callable[[], None]
) -> tuple[Plan, Any, frozenset[int], dict[int, Axes]]:
    """Traces the call at the seed's shapes and infers it from the architecture's axes.

    Returns:
        The plan, the tree of outputs, the positions of those that are updates of variables that
        left with their block, and the variables that still have to be sliced: the architecture
        was inferred from a call that does not read them, so that only this one tells their axes.
    """
    inference = Inference()
    structs: list[Any] = []
    terms: list[Axes] = []
    groups = {n: Atom(group.seed_width, name=n) for n, group in architecture.groups.items()}
    for path, leaf in zip(call.paths, call.variables, strict=True):
        if path.startswith(f"{RANDOM}/"):
            structs.append(leaf)
            terms.append(inference.fresh_axes(leaf.shape))
            continue
        if path not in architecture.variables:
            raise InputError(
                f"the architecture has no variable {path!r}{near(path, architecture.variables)}. "
                "If a call takes more, e.g. a cache, trace one that has it among the variables."
            )
        seed = architecture.variables[path]
        if seed.kind == UNUSED:  # where its axes seem fixed only this call tells what they are
            structs.append(leaf.update(shape=seed.shape))
            open_axes = inference.fresh_axes(seed.shape)
            terms.append(
                tuple(
                    term if isinstance(axis, int) else thaw(axis, groups)
                    for axis, term in zip(seed.axes, open_axes, strict=True)
                )
            )
            continue
        seed = seed.at(leaf.shape)
        now = tuple(size(axis, architecture.widths) for axis in seed.axes)
        if leaf.shape != now and path not in architecture.gone:
            raise InputError(_misfit(path, leaf.shape, seed.shape, now))
        structs.append(leaf.update(shape=seed.shape))
        terms.append(tuple(thaw(axis, groups) for axis in seed.axes))
    inputs = [abstract(array) for array in call.arrays]
    closed, outputs = call.trace([*structs, *inputs])
    body = inference.run(closed, [*terms, *fixed_inputs(inference, inputs)])
    if rescale_means:
        architecture = architecture.counting(architecture.widths)
    plan = make_plan(architecture, groups, inference, body, "call", forget)
    late = _late(call, structs, terms, plan.sizes, architecture)
    known = [architecture.variables.get(path) for path in call.paths]
    produces = [frozenset() if one is None else one.produces for one in known]
    plan = replace(plan, lacking=_lacking(architecture, groups, body, produces, plan.sizes))
    dropped: frozenset[int] = frozenset()
    if architecture.gone:
        gone = [i for i, path in enumerate(call.paths) if path in architecture.gone]
        dropped = frozenset(
            i
            for i, (path, axes) in enumerate(zip(flat_paths(outputs)[0], body.outputs, strict=True))
            if updated_variable(path, axes, call, terms) in gone
        )
        plan = replace(plan, silence=find_silence(body, gone, dropped))
    return plan, jax.tree.structure(outputs), dropped, late


def _late(
    call: Call,
    structs: Sequence[Any],
    terms: Sequence[Axes],
    sizes: Sizes,
    architecture: Architecture,
) -> dict[int, Axes]:
    """The axes of variables that are still as wide as the seed's, by their positions.

    Raises:
        ValueError: if one fits neither the seed nor the architecture, or clones would have to
            share what it takes in.
    """
    found = {}
    for i, (path, leaf, struct, axes) in enumerate(
        zip(call.paths, call.variables, structs, terms, strict=True)
    ):
        variable, now = architecture.variables.get(path), sizes.shape(axes)
        if variable is None or variable.kind != UNUSED or leaf.shape == now:
            continue
        if path in architecture.gone:
            continue
        asked = architecture.shape(path)  # what `take` gave it, before this call told its axes
        if leaf.shape != asked:
            raise InputError(_misfit(path, leaf.shape, struct.shape, now))
        left = tuple(
            Atom(n) if n == m else term for n, m, term in zip(asked, now, axes, strict=True)
        )
        if variable.trained and not sizes.only_kept(left):
            raise InputError(
                f"{path!r} is read by this call and not by the one that the architecture was "
                "inferred from, so that its clones have no shares: trace in this mode."
            )
        found[i] = left
    return found


def _misfit(path: str, found: Sequence[int], seed: Sequence[int], now: Sequence[int]) -> str:
    return (
        f"{path!r} has shape {list(found)}, but the architecture resized it from {list(seed)} to "
        f"{list(now)}; pass architecture.take(variables) or morph.init(...)."
    )


def _lacking(
    architecture: Architecture,
    groups: Mapping[str, Atom],
    body: Body,
    produces: Sequence[Collection[int]],
    sizes: Sizes,
) -> Lacking | None:
    """What sums lack over groups that were shrunk, where their dead channels are not zero."""
    found = {
        root: name
        for name in sorted(architecture.resized)
        if isinstance(root := find(groups[name]), Atom) and sizes.only_kept((root,))
    }
    exactness = find_inexact(body, found.keys(), zeroed_inputs(body, found.keys(), produces))
    if not exactness.reasons:
        return None
    means = {name: architecture.mean_widths[name] for name in found.values()}
    return Lacking(
        dead=find_dead(body, exactness, len(produces)),
        counted={**architecture.widths, **means},
        sizes=sizes,
    )


def fixed_inputs(inference: Inference, inputs: Sequence[Any]) -> list[Axes]:
    """The terms of inputs, which keep their shapes."""
    return [
        tuple(inference.solver.fixed(n, "axis of an input") for n in struct.shape)
        for struct in inputs
    ]


def make_plan(
    architecture: Architecture,
    groups: Mapping[str, Atom],
    inference: Inference,
    body: Body,
    what: str,
    forget: Callable[[], None] = lambda: None,
) -> Plan:
    """A plan to evaluate `body`, once it is sure that it leaves every resized group free.

    Args:
        architecture: the widths to evaluate at.
        groups: the atom that stands for each of its groups.
        inference: what inferred `body`, and will infer derivative rules.
        body: the inferred function.
        what: `call` or `initializer`, for messages.
        forget: called when a derivative rule turns out to fix a width.
    """

    def check() -> None:
        try:
            check_resized(architecture, groups, what)
        except ValueError:
            forget()  # what a derivative rule fixed stays fixed in its plan
            raise

    check()
    counted = architecture.mean_widths
    return Plan(
        body=body,
        inference=inference,
        sizes=Sizes.at(architecture),
        check=check,
        mean_widths=counted,
        means=find_means(body) if counted != architecture.seed_widths else None,
    )


def check_resized(architecture: Architecture, groups: Mapping[str, Atom], what: str) -> None:
    """Raises if inference tied, split or fixed a group that the architecture resized."""
    for name in sorted(architecture.resized):
        root = find(groups[name])
        if isinstance(root, Atom) and root.pin is None:
            continue
        pin = next((atom.pin for atom in atoms(root) if atom.pin is not None), None)
        where = source_line(pin.source) if pin else ""
        why = (pin.reason if pin else "it is split") + (f" [{where}]" if where else "")
        raise InputError(
            f"cannot resize group {name!r} in this {what}: {why}. Infer the architecture from this "
            "function: morph.shrink(reg.trace_channels(fn, variables, ...), alive)."
        )
