"""The formats: which cores a kernel of some shape gets, and how large their ranks can be.

Every function takes the shape of a kernel and its roles, one letter an axis: `i` for axes that the
layer sums over, `o` for those that it makes, `s` for the window of a convolution: `ssio` for Flax's
2-d convolutions, `io` for dense layers, `ioo` for an attention's queries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count

from morph.kernels.contract import Labels
from morph.kernels.factorized import Format
from morph.kernels.shapes import split_axes
from regularizers.errors import InputError

CORES = 4  # of a tensor train, unless told; published figures are for four


def axis_labels(roles: str) -> tuple[Labels, ...]:
    """One label for each axis: `i0`, `o0`, `s0`, `s1`, ..."""
    counters = {role: count() for role in "sio"}
    return tuple((f"{role}{next(counters[role])}",) for role in roles)


def svd(shape: Sequence[int], roles: str) -> tuple[Format, dict[str, int]]:
    """Two factors, W = U V. Of a convolution, U keeps the window (Zhang et al. 2015)."""
    axes = axis_labels(roles)
    return _with_sizes(
        Format(
            kind="svd",
            names=("in", "out"),
            labels=((*_of(axes, roles, "si"), "r"), ("r", *_of(axes, roles, "o"))),
            axes=axes,
        ),
        shape,
    )


def tucker2(shape: Sequence[int], roles: str) -> tuple[Format, dict[str, int]]:
    """W = A G B: a factor on the input, one on the output, and a core between (Kim et al. 2015)."""
    axes = axis_labels(roles)
    return _with_sizes(
        Format(
            kind="tucker2",
            names=("in", "core", "out"),
            labels=(
                (*_of(axes, roles, "i"), "r_in"),
                (*_of(axes, roles, "s"), "r_in", "r_out"),
                ("r_out", *_of(axes, roles, "o")),
            ),
            axes=axes,
        ),
        shape,
    )


def tucker(shape: Sequence[int], roles: str) -> tuple[Format, dict[str, int]]:
    """A factor on every axis, and a core of their ranks (Tucker 1966)."""
    axes = axis_labels(roles)
    labels = [label for axis in axes for label in axis]
    return _with_sizes(
        Format(
            kind="tucker",
            names=(*(f"{label}" for label in labels), "core"),
            labels=(
                *((label, f"r_{label}") for label in labels),
                tuple(f"r_{label}" for label in labels),
            ),
            axes=axes,
        ),
        shape,
    )


def cp(shape: Sequence[int], roles: str) -> tuple[Format, dict[str, int]]:
    """A sum of rank-one tensors: one factor an axis, one rank for all (Lebedev et al. 2014)."""
    axes = axis_labels(roles)
    labels = [label for axis in axes for label in axis]
    return _with_sizes(
        Format(
            kind="cp",
            names=tuple(labels),
            labels=tuple((label, "r") for label in labels),
            axes=axes,
        ),
        shape,
    )


def tt(
    shape: Sequence[int],
    roles: str,
    *,
    cores: int = CORES,
    factors: Sequence[Sequence[int]] | None = None,
) -> tuple[Format, dict[str, int]]:
    """A tensor train of matrices, or matrix product operator.

    Core k carries the k-th factor of the input and of the output (Novikov et al. 2015). The window
    of a convolution is a core of its own, in front (Garipov et al. 2016).

    Args:
        shape: of the kernel.
        roles: of its axes.
        cores: how many, besides the window's; fewer where there are not as many factors.
        factors: for each axis its factors; of all input axes together as many as of all output
            axes. As equal as they come if not given.

    Raises:
        ValueError: if the factors do not multiply to the shape, or there are not as many of the
            input as of the output.
    """
    given = _factors(shape, roles, cores) if factors is None else [tuple(f) for f in factors]
    if len(given) != len(shape) or any(
        math.prod(f) != n or min(f, default=1) < 1 for f, n in zip(given, shape, strict=True)
    ):
        raise InputError(
            f"factors {[list(f) for f in given]} do not multiply to the shape {list(shape)}, axis "
            "by axis; choose others, or leave them out."
        )
    counters = {role: count() for role in "sio"}
    axes = tuple(
        tuple(f"{role}{next(counters[role])}" for _ in own)
        for role, own in zip(roles, given, strict=True)
    )
    sizes = {
        label: size
        for axis, own in zip(axes, given, strict=True)
        for label, size in zip(axis, own, strict=True)
    }
    window, ins, outs = (_of(axes, roles, role) for role in "sio")
    if len(ins) != len(outs):
        raise InputError(
            f"a tensor train takes as many factors of the input as of the output, found {len(ins)} "
            f"and {len(outs)} in {[list(f) for f in given]}."
        )
    own_axes: list[Labels] = [window] if window else []
    own_axes += zip(ins, outs, strict=True)
    last = len(own_axes) - 1
    labels = tuple(
        (*((f"r{k}",) if k else ()), *own, *((f"r{k + 1}",) if k < last else ()))
        for k, own in enumerate(own_axes)
    )
    names = ("window",) * bool(window) + tuple(f"core{k}" for k in range(len(ins)))
    format = Format(kind="tt", names=names, labels=labels, axes=axes)
    return format, {**sizes, **max_ranks(format, sizes)}


def _factors(shape: Sequence[int], roles: str, cores: int) -> list[tuple[int, ...]]:
    if cores < 1:
        raise InputError(f"a tensor train has at least one core, asked for {cores}")
    found: dict[int, tuple[int, ...]] = {k: (n,) for k, n in enumerate(shape)}
    axes = {role: [k for k, own in enumerate(roles) if own == role] for role in "io"}
    least = max(min(cores, 2), *map(len, axes.values()))
    for many in range(max(cores, least), least - 1, -1):
        for own in axes.values():
            found.update(zip(own, split_axes([shape[k] for k in own], many), strict=True))
        if any(min(min(found[k]) for k in own) > 1 for own in axes.values()):
            break  # else a core would be a single row of ranks
    return [found[k] for k in range(len(shape))]


Maker = Callable[..., tuple[Format, dict[str, int]]]

FORMATS: Mapping[str, Maker] = {
    "svd": svd,
    "tucker2": tucker2,
    "tucker": tucker,
    "cp": cp,
    "tt": tt,
}


def max_ranks(format: Format, sizes: Mapping[str, int]) -> dict[str, int]:
    """The ranks that can make any kernel of these axes, and above which more bring nothing.

    A bond between two parts of the network is at most as large as what either part can tell apart.
    CP's rank has no such bound that is sharp; the product of all axes but the largest is enough.
    """
    open_ = {label for axis in format.axes for label in axis}
    if format.kind == "cp":
        lengths = [sizes[label] for label in open_]
        return {"r": math.prod(lengths) // max(lengths)}
    total = math.prod(sizes[label] for label in open_)
    ranks = {}
    for bond in format.bonds:
        side = math.prod(sizes[label] for label in _side(format, bond) if label in open_)
        ranks[bond] = min(side, total // side)
    return ranks


def _side(format: Format, bond: str) -> set[str]:
    """The labels on one side of a bond; the network is a tree."""
    first = next(k for k, own in enumerate(format.labels) if bond in own)
    seen, waiting = {first}, [first]
    while waiting:
        for label in format.labels[waiting.pop()]:
            for k, own in enumerate(format.labels):
                if label != bond and label in own and k not in seen:
                    seen.add(k)
                    waiting.append(k)
    return {label for k in seen for label in format.labels[k]}


def _with_sizes(format: Format, shape: Sequence[int]) -> tuple[Format, dict[str, int]]:
    """The format, with the lengths of its axes and the largest ranks."""
    sizes = {axis[0]: n for axis, n in zip(format.axes, shape, strict=True)}
    return format, {**sizes, **max_ranks(format, sizes)}


def _of(axes: Sequence[Labels], roles: str, wanted: str) -> Labels:
    """The labels of the axes of some roles, in the order of the kernel."""
    return tuple(
        label for axis, role in zip(axes, roles, strict=True) if role in wanted for label in axis
    )
