"""Which kernels a function multiplies, convolves or looks up with, and what their axes are for.

Every variable is followed through the function as a network of one core, with the engine that
evaluates factorized kernels: what it would meet is what a factorized one will meet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from morph.kernels.evaluate import dense, evaluate
from morph.kernels.factorized import Factorized, Format
from regularizers.channels.graph import ChannelGraph
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import ClosedJaxpr, JaxprEqn
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.sources import source_line


@dataclass(frozen=True, kw_only=True)
class KernelUse:
    """One product, convolution or lookup with a kernel.

    Attributes:
        roles: of the kernel's axes: `i`, `o`, `s`, and `b` for a stack, taken one by one.
        eqn: the equation.
        side: which operand the kernel is.
        form: the kernel as it arrives there, as a network of one core.
    """

    roles: str
    eqn: JaxprEqn = field(repr=False)
    side: int
    form: Factorized = field(repr=False)

    @property
    def groups(self) -> int:
        """Of a grouped convolution; 1 elsewhere."""
        return int(self.eqn.params.get("feature_group_count", 1))


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A variable that products, convolutions or lookups use.

    Attributes:
        path: of the variable.
        shape: of the variable.
        uses: all of them, in order.
        dense_because: why it has to be made dense somewhere; "" where it never has.
    """

    path: str
    shape: tuple[int, ...]
    uses: tuple[KernelUse, ...]
    dense_because: str = ""

    @property
    def roles(self) -> str:
        """One letter for each of its axes: as its first product or convolution has them."""
        return self.uses[0].roles if self.uses else ""

    @property
    def depthwise(self) -> bool:
        """Whether it is a window for each of several channels, and sums over none."""
        if all(use.groups == 1 for use in self.uses):
            return False
        return math.prod(n for n, r in zip(self.shape, self.roles, strict=True) if r == "i") == 1


# Told of every use of a kernel: its path, the use, and the operands.
Watch = Callable[[str, KernelUse, Sequence[Any]], None]


def kernels_of(graph: ChannelGraph) -> dict[str, Kernel]:
    """The kernels of a function, by path, in the order of the tree.

    Lookups alone count too: tables of embeddings. Where a table is a kernel as well, the product
    tells its roles.
    """
    uses: dict[str, list[KernelUse]] = {}
    reasons: dict[str, str] = {}
    structs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in graph.variables.values()]
    inputs = [v.aval for v in graph.jaxpr.invars[len(structs) :]]

    def watch(path: str, use: KernelUse, operands: Sequence[Any]) -> None:
        del operands
        uses.setdefault(path, []).append(use)

    jax.eval_shape(lambda *values: run(graph, values, watch, reasons), *structs, *inputs)
    return {
        path: Kernel(
            path=path,
            shape=variable.shape,
            uses=tuple(sorted(uses.get(path, ()), key=lambda use: use.eqn.primitive is p.gather_p)),
            dense_because=reasons.get(path, ""),
        )
        for path, variable in graph.variables.items()
        if path in uses or (path in reasons and variable.kind != "shift")
    }


def run(
    graph: ChannelGraph,
    values: Sequence[Any],
    watch: Watch,
    reasons: dict[str, str] | None = None,
    changed: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The outputs of a traced function, with every use of a kernel watched.

    Args:
        graph: of the function.
        values: its variables and inputs, flat.
        watch: told of every use.
        reasons: filled with why kernels have to be made dense.
        changed: other values of variables, by path, read where they are used: `watch` may add to
            them, for all that comes after it.
    """
    paths = list(graph.variables)
    least = 2 if changed is None else 1
    ranks = [len(variable.shape) for variable in graph.variables.values()]
    forms = [
        _one_core(i, value)
        if jnp.issubdtype(value.dtype, jnp.inexact) and value.ndim >= least
        else value
        for i, value in enumerate(values[: len(paths)])
    ]

    def meet(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
        for side, form in enumerate(operands):
            if not isinstance(form, Factorized):
                continue
            variable = _variable(form)
            roles = ROLES.get(eqn.primitive, _no_roles)(eqn, side, form)
            if roles:
                letters = (roles.get(f"{variable}:{k}", "b") for k in range(ranks[variable]))
                use = KernelUse(roles="".join(letters), eqn=eqn, side=side, form=form)
                watch(paths[variable], use, operands)
            elif reasons is not None:
                where = source_line([eqn.source_info])
                what = "a convolution of groups of the batch" if side else eqn.primitive.name
                what = what if eqn.primitive is p.conv_general_dilated_p else eqn.primitive.name
                reasons[paths[variable]] = f"used by {what}" + (f" [{where}]" if where else "")
        return jaxprs.rebind(eqn, [dense(now(value)) for value in operands])

    def now(value: Any) -> Any:
        path = paths[_variable(value)] if isinstance(value, Factorized) else ""
        if not changed or path not in changed:
            return value
        return replace(value, cores=(jnp.asarray(changed[path], value.dtype),))

    closed = ClosedJaxpr(graph.jaxpr, graph.body.consts)
    return evaluate(closed, [*forms, *values[len(paths) :]], meet)


def _one_core(i: int, value: Any) -> Factorized:
    labels = tuple(f"{i}:{k}" for k in range(value.ndim))
    format = Format(
        kind="dense", names=("kernel",), labels=(labels,), axes=tuple((n,) for n in labels)
    )
    return Factorized(cores=(value,), format=format)


def _variable(form: Factorized) -> int:
    """Which variable it is."""
    return int(form.format.labels[0][0].split(":")[0])


def _no_roles(eqn: JaxprEqn, side: int, form: Factorized) -> dict[str, str]:
    del eqn, side, form
    return {}


def _roles(form: Factorized, letters: Mapping[int, str]) -> dict[str, str]:
    """The letter of every label, from those of the axes."""
    return {
        label: letters[k]
        for k, axis in enumerate(form.format.axes)
        for label in axis
        if k in letters
    }


def _dot_roles(eqn: JaxprEqn, side: int, form: Factorized) -> dict[str, str]:
    contracted, batch = eqn.params["dimension_numbers"]
    letters = dict.fromkeys(range(form.ndim), "o")
    letters.update(dict.fromkeys(contracted[side], "i"))
    letters.update(dict.fromkeys(batch[side], "b"))
    return _roles(form, letters)


def _conv_roles(eqn: JaxprEqn, side: int, form: Factorized) -> dict[str, str]:
    if side == 0 or eqn.params["batch_group_count"] > 1:
        return {}
    out, in_, *spatial = eqn.params["dimension_numbers"].rhs_spec
    return _roles(form, {out: "o", in_: "i", **dict.fromkeys(spatial, "s")})


def _lookup_roles(eqn: JaxprEqn, side: int, form: Factorized) -> dict[str, str]:
    numbers = eqn.params["dimension_numbers"]
    if side or len(numbers.start_index_map) != 1:
        return {}
    letters = dict.fromkeys(range(form.ndim), "o")
    return _roles(form, {**letters, numbers.start_index_map[0]: "i"})


ROLES = {
    p.conv_general_dilated_p: _conv_roles,
    p.dot_general_p: _dot_roles,
    p.gather_p: _lookup_roles,
}
