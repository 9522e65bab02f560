"""What comes straight after a layer: a bias, or the mean of a batch norm, and a relu."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from regularizers.channels.graph import ChannelGraph
from regularizers.primitives import jaxprs
from regularizers.primitives.jaxprs import Jaxpr, JaxprEqn, Literal, Primitive, Var, shape_of
from regularizers.primitives.jaxprs import primitives as p

IN_PLACE = frozenset({p.call_p, p.closed_call_p, p.jit_p, p.remat_p, jaxprs.call_hi_primitive_p})


@dataclass(frozen=True, kw_only=True)
class Following:
    """What comes straight after a layer, of which nothing else reads the result.

    Attributes:
        bias: path of the variable that is added or subtracted, and nowhere else used; "" for none.
        sign: -1 where it is subtracted, as a batch norm does with its running mean.
        relu: whether only relus read what that makes.
    """

    bias: str = ""
    sign: float = 1.0
    relu: bool = False


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A variable where it is read: which axis each of its own is that is longer than 1."""

    path: str
    axes: tuple[int, ...] | None  # None where it was cut to pieces


def following(graph: ChannelGraph) -> dict[str, Following]:
    """What follows the kernels of a function, by path, of those that it uses once.

    A kernel counts if it comes to its product or convolution as it is, on the right.
    """
    found: dict[str, Following] = {}
    uses: Counter[str] = Counter()

    def walk(jaxpr: Jaxpr, origins: dict[Var, _Placed]) -> None:
        eqns = jaxprs.live_equations(jaxpr)
        readers: dict[Var, list[JaxprEqn | None]] = defaultdict(list)
        for reader in (*eqns, None):  # None: it is a result
            for v in jaxpr.outvars if reader is None else reader.invars:
                if isinstance(v, Var):
                    readers[v].append(reader)
        for eqn in eqns:
            placed = _move(eqn, origins)
            if placed is not None:
                origins[eqn.outvars[0]] = placed
        for eqn in eqns:
            known = [origins.get(v) if isinstance(v, Var) else None for v in eqn.invars]
            if eqn.primitive in IN_PLACE:
                body = jaxprs.bodies_of(eqn)[0].jaxpr
                pairs = zip(body.invars, known, strict=True)
                walk(body, {v: placed for v, placed in pairs if placed is not None})
            elif eqn.outvars[0] not in origins:
                uses.update(placed.path for placed in known if placed is not None)
                kernel = known[1] if eqn.primitive in OUTPUTS else None
                if kernel is not None and kernel.axes == _all(shape_of(eqn.invars[1])):
                    found[kernel.path] = _after(eqn, readers, origins)
        uses.update(origins[v].path for v in jaxpr.outvars if isinstance(v, Var) and v in origins)

    variables = zip(graph.jaxpr.invars, graph.variables.items(), strict=False)
    walk(
        graph.jaxpr,
        {v: _Placed(path=path, axes=_all(variable.shape)) for v, (path, variable) in variables},
    )
    return {
        path: one if not one.bias or uses[one.bias] == 1 else Following()
        for path, one in found.items()
        if uses[path] == 1
    }


def _after(
    eqn: JaxprEqn,
    readers: Mapping[Var, Sequence[JaxprEqn | None]],
    origins: Mapping[Var, _Placed],
) -> Following:
    result = eqn.outvars[0]
    outputs = _wide(shape_of(result), OUTPUTS[eqn.primitive](eqn))
    bias, sign = "", 1.0
    match readers[result]:
        case [JaxprEqn(primitive=p.add_p | p.sub_p) as reader]:
            subtracts = reader.primitive is p.sub_p
            left, right = reader.invars
            other = right if left is result else left
            placed = origins.get(other) if isinstance(other, Var) else None
            if placed is not None and placed.axes == outputs and (other is right or not subtracts):
                bias, sign, result = placed.path, -1.0 if subtracts else 1.0, reader.outvars[0]
    then = readers[result]
    relu = bool(then) and all(one is not None and _is_relu(one) for one in then)
    return Following(bias=bias, sign=sign, relu=relu)


def _is_relu(eqn: JaxprEqn) -> bool:
    """max(x, 0), also inside of calls: `jax.nn.relu` has a derivative of its own."""
    if eqn.primitive is p.max_p:
        return any(isinstance(v, Literal) and not np.any(v.val) for v in eqn.invars)
    if eqn.primitive in (*IN_PLACE, p.custom_jvp_call_p):
        return [_is_relu(one) for one in jaxprs.bodies_of(eqn)[0].jaxpr.eqns] == [True]
    return False


def _wide(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """Those axes that are longer than 1."""
    return tuple(k for k in axes if shape[k] != 1)


def _all(shape: Sequence[int]) -> tuple[int, ...]:
    return _wide(shape, range(len(shape)))


def _move(eqn: JaxprEqn, origins: Mapping[Var, _Placed]) -> _Placed | None:
    """The variable that an equation puts into place; None if it does something else."""
    rule = PLACES.get(eqn.primitive)
    v = eqn.invars[0] if rule else None
    placed = origins.get(v) if isinstance(v, Var) else None
    if rule is None or placed is None:
        return None
    return replace(placed, axes=rule(eqn, placed.axes))


def _reshaped(eqn: JaxprEqn, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Axes of length 1 may come and go."""
    old, new = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    before, after = _all(old), _all(new)
    if axes is None or [old[k] for k in before] != [new[k] for k in after]:
        return None
    return tuple(after[before.index(k)] for k in axes)


def _reordered(eqn: JaxprEqn, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """A reshape, which may transpose first: then nobody follows."""
    return None if eqn.params["dimensions"] else _reshaped(eqn, axes)


def _broadcast(eqn: JaxprEqn, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if axes is None else tuple(eqn.params["broadcast_dimensions"][k] for k in axes)


def _same(eqn: JaxprEqn, axes: tuple[int, ...] | None) -> tuple[int, ...] | None:
    del eqn
    return axes


# What puts a variable into place, with where its axes are then.
PLACES: Mapping[Primitive, Callable[..., tuple[int, ...] | None]] = {
    p.broadcast_in_dim_p: _broadcast,
    p.convert_element_type_p: _same,
    p.copy_p: _same,
    p.reshape_p: _reordered,
    p.squeeze_p: _reshaped,
    jaxprs.copy_p: _same,
}
# The axes of a result that are the outputs of the kernel on the right.
OUTPUTS: Mapping[Primitive, Callable[[JaxprEqn], Sequence[int]]] = {
    p.conv_general_dilated_p: lambda eqn: eqn.params["dimension_numbers"].out_spec[1:2],
    p.dot_general_p: lambda eqn: range(
        len(shape_of(eqn.invars[0])) - len(eqn.params["dimension_numbers"][0][0]),
        len(shape_of(eqn.outvars[0])),
    ),
}
