"""`compact(fn, architecture)`: the same function on resized variables."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax

from morph.architecture import Architecture
from morph.resize.evaluate import Plan, evaluate
from morph.resize.sizes import Sizes, thaw
from regularizers.channels import jaxprs
from regularizers.channels.calls import Call, abstract, bind_call
from regularizers.channels.graph import near
from regularizers.channels.inference import Inference
from regularizers.channels.terms import Atom, find


def compact(fn: Callable[..., Any], architecture: Architecture) -> Callable[..., Any]:
    """`fn` at the widths of `architecture`: a function with fn's signature on small variables.

    When called it traces `fn` abstractly at the seed's shapes, infers the channels of that very
    call (any batch size, train or eval mode) and evaluates it again at the new widths. It composes
    with `jit`, `grad` and `vmap`; derivative rules and remat survive; an output that carries a
    group, e.g. updated batch statistics, comes out resized. Calls of the same shapes share a trace.

    Args:
        fn: the function that the architecture was inferred from, or another one of the same
            variables (e.g. in train mode).
        architecture: what every group became; see `morph.shrink` and `morph.expand`.

    Returns:
        `small_fn(variables, *inputs, **static)`, where `variables = architecture.take(...)`.

    Raises:
        ValueError: when called, if the variables do not have the architecture's shapes, or if this
            call of `fn` ties or fixes a width that the architecture changed.
    """
    plans: dict[Hashable, tuple[Plan, Any]] = {}

    @functools.wraps(fn)
    def small_fn(variables: Any, *inputs: Any, **static: Any) -> Any:
        call = bind_call(fn, variables, inputs, static)
        key = call.signature
        known = plans.get(key) if key is not None else None
        plan, out_tree = known or _plan(call, architecture, plans.clear)
        if key is not None:
            plans[key] = plan, out_tree
        values = [*jax.tree.leaves(variables), *call.arrays]
        return jax.tree.unflatten(out_tree, evaluate(plan, plan.body, values))

    return small_fn


def _plan(call: Call, architecture: Architecture, forget: Callable[[], None]) -> tuple[Plan, Any]:
    """Traces the call at the seed's shapes and infers it from the architecture's axes."""
    structs, terms = [], []
    groups = {n: Atom(group.seed_width, name=n) for n, group in architecture.groups.items()}
    for path, leaf in zip(call.paths, call.variables, strict=True):
        if path not in architecture.variables:
            raise ValueError(
                f"the architecture has no variable {path!r}{near(path, architecture.variables)}"
            )
        layout = architecture.variables[path]
        if leaf.shape != architecture.shape(path):
            raise ValueError(
                f"{path!r} has shape {list(leaf.shape)}, but the architecture resized it from "
                f"{list(layout.shape)} to {list(architecture.shape(path))}; "
                "pass architecture.take(variables) or morph.init(...)."
            )
        structs.append(jax.ShapeDtypeStruct(layout.shape, leaf.dtype))
        terms.append(tuple(thaw(axis, groups) for axis in layout.axes))
    inputs = [abstract(array) for array in call.arrays]
    inference = Inference()
    fixed = [
        tuple(inference.solver.fixed(n, "axis of an input") for n in struct.shape)
        for struct in inputs
    ]
    closed, outputs = jaxprs.trace(call.flat, *structs, *inputs)
    body = inference.run(closed, [*terms, *fixed])

    def check() -> None:
        try:
            check_resized(architecture, groups, "call")
        except ValueError:
            forget()  # what a derivative rule fixed stays fixed in its plan
            raise

    check()
    plan = Plan(body=body, inference=inference, sizes=Sizes.at(architecture), check=check)
    return plan, jax.tree.structure(outputs)


def check_resized(architecture: Architecture, groups: Mapping[str, Atom], what: str) -> None:
    """Raises if inference tied, split or fixed a group that the architecture resized."""
    for name in sorted(architecture.resized):
        root = find(groups[name])
        if isinstance(root, Atom) and root.pin is None:
            continue
        why = "it is split"
        if isinstance(root, Atom) and root.pin is not None:
            where = jaxprs.source_line(root.pin.source)
            why = root.pin.reason + (f" [{where}]" if where else "")
        raise ValueError(
            f"cannot resize group {name!r} in this {what}: {why}. Infer the architecture from this "
            "function: morph.shrink(reg.trace_channels(fn, variables, ...), alive)."
        )
