"""Primitives that only move, merge, cut and repeat axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from regularizers.primitives.coupling import (
    Rule,
    fixed_axes,
    out_shape,
    pin_everything,
    together,
)
from regularizers.primitives.flow import opaque
from regularizers.primitives.jaxprs import (
    JaxprEqn,
    Primitive,
    empty_p,
    random_unwrap_p,
    random_wrap_p,
    shape_of,
    split_p,
    stack_p,
    tile_p,
    unstack_p,
)
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import FREE, Params, Record, Sizes, again, reads
from regularizers.primitives.signs import anything, joined, kept, not_below, padded, rooted
from regularizers.primitives.step import Destinations, Step
from regularizers.primitives.terms import Axes, Solver, Term, concatenation, merge, permuted


def broadcast_in_dim(solver: Solver, eqn: JaxprEqn, operand: Axes, *_: Axes) -> list[Axes]:
    """out[dims[k]] ~ operand[k] unless it is repeated; all other axes are new widths.

    Example: f32[8] -> f32[2,4,8] with dims (2,). Reads `shape`, `broadcast_dimensions`.
    """
    axes: list[Term] = [solver.fresh(n) for n in eqn.params["shape"]]
    for term, k in zip(operand, eqn.params["broadcast_dimensions"], strict=True):
        if term.size == axes[k].size:
            axes[k] = term
    return [tuple(axes)]


def placed(step: Step) -> Destinations:
    """Axis k becomes axis dims[k], also where it is of size 1 and repeated."""
    to: Destinations = [[()] * len(axes) for axes in step.operands]
    to[0] = [(k,) for k in step.eqn.params["broadcast_dimensions"]]
    return to


def chunks(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """The smallest runs of axes that a reshape maps onto each other, axes of size 1 left out.

    Example: (2, 4, 8) -> (2, 1, 32) gives ([0], [0]) and ([1, 2], [2]).
    """
    left = [k for k, n in enumerate(before) if n != 1]
    right = [k for k, n in enumerate(after) if n != 1]
    while left:
        ins, outs = [left.pop(0)], [right.pop(0)]
        size_in, size_out = before[ins[0]], after[outs[0]]
        while size_in != size_out:
            if size_in < size_out:
                ins.append(left.pop(0))
                size_in *= before[ins[-1]]
            else:
                outs.append(right.pop(0))
                size_out *= after[outs[-1]]
        yield ins, outs


def reshape(solver: Solver, eqn: JaxprEqn, operand: Axes, *rest: Axes) -> list[Axes]:
    """Runs of axes of equal product: one term, merged (`Product`) or divided.

    Example: f32[2,4,4,8] -> f32[2,128] makes the last axis 4 x 4 x 8. Reads `new_sizes`, and
    `dimensions`, by which the operand is transposed first.
    """
    order = eqn.params["dimensions"] or range(len(operand))
    operand = tuple(operand[k] for k in order)
    before, after = tuple(term.size for term in operand), out_shape(eqn)
    if 0 in before or rest:
        return pin_everything(solver, eqn, operand, *rest, reason="reshape of an empty array")
    axes: list[Term] = [solver.fresh(n) for n in after]
    for ins, outs in chunks(before, after):
        merged = merge(operand[k] for k in ins)
        if len(outs) == 1:
            axes[outs[0]] = merged
        else:
            solver.unify(merged, merge(axes[k] for k in outs))
    return [tuple(axes)]


def transpose(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """out[k] ~ operand[permutation[k]]. Reads `permutation`."""
    del solver
    return [tuple(operand[k] for k in eqn.params["permutation"])]


def squeeze(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """The axes in `dimensions`, all of size 1, go."""
    del solver
    dropped = eqn.params["dimensions"]
    return [tuple(term for k, term in enumerate(operand) if k not in dropped)]


def concatenate(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """out[dimension] = Sum of the operands'; all other axes are the same. Reads `dimension`."""
    k = eqn.params["dimension"]
    others = [(*axes[:k], *axes[k + 1 :]) for axes in operands]
    shape = out_shape(eqn)
    same = together(solver, others, (*shape[:k], *shape[k + 1 :]))
    return [(*same[:k], concatenation(axes[k] for axes in operands), *same[k:])]


def split(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """operand[axis] = Sum of the results'. Reads `axis`, `sizes`."""
    k = eqn.params["axis"]
    pieces = [solver.fresh(int(n)) for n in eqn.params["sizes"]]
    solver.unify(operand[k], concatenation(pieces))
    return [(*operand[:k], piece, *operand[k + 1 :]) for piece in pieces]


def slice_(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """operand[k] = before + out[k] + after; a stride pins. Reads start, limit and strides."""
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * len(operand)
    axes: list[Term] = []
    for term, n, start, limit, stride in zip(
        operand, out_shape(eqn), starts, limits, strides, strict=True
    ):
        if n == term.size:
            axes.append(term)
        elif n == 0:
            axes.append(solver.fixed(0, "an empty slice"))
        elif stride != 1:
            solver.pin(term, "sliced with a stride")
            axes.append(solver.fixed(n, "sliced with a stride"))
        else:
            piece = solver.fresh(n)
            around = [solver.fresh(start), piece, solver.fresh(term.size - limit)]
            solver.unify(term, concatenation(around))
            axes.append(piece)
    return [tuple(axes)]


def pad(solver: Solver, eqn: JaxprEqn, operand: Axes, value: Axes) -> list[Axes]:
    """out[k] = low + operand[k] + high; negative or interior padding pins.

    Reads `padding_config`.
    """
    del value
    axes: list[Term] = []
    for term, n, (low, high, interior) in zip(
        operand, out_shape(eqn), eqn.params["padding_config"], strict=True
    ):
        if (low, high, interior) == (0, 0, 0):
            axes.append(term)
        elif low >= 0 and high >= 0 and (interior == 0 or term.size <= 1):
            axes.append(concatenation([solver.fresh(low), term, solver.fresh(high)]))
        else:
            solver.pin(term, "padded in between or by a negative amount")
            axes.append(solver.fixed(n, "padded in between or by a negative amount"))
    return [tuple(axes)]


def rev(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """Axes that are reversed are in another order; the others carry. Reads `dimensions`."""
    turned = eqn.params["dimensions"]
    solver.moves = {k: tuple(range(operand[k].size))[::-1] for k in turned}
    return [
        tuple(permuted(t, solver.moves[k]) if k in turned else t for k, t in enumerate(operand))
    ]


def tile(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """out[k] = reps[k] x operand[k], the copies outermost. Reads `reps`.

    Example: f32[5,7] with reps (1, 3) -> f32[5,21]; an axis of size 1 becomes a new width.
    """
    return [
        tuple(
            term if n == 1 else merge([solver.fresh(n), term])
            for term, n in zip(operand, eqn.params["reps"], strict=True)
        )
    ]


def stack(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """A new axis that counts the operands, which are alike. Reads `axis`."""
    k = eqn.params["axis"]
    same = together(solver, operands, shape_of(eqn.invars[0]))
    return [(*same[:k], solver.fixed(len(operands), "arrays are stacked along it"), *same[k:])]


def unstack(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """One result for every position of an axis, which is pinned. Reads `axis`."""
    k = eqn.params["axis"]
    solver.pin(operand[k], "taken apart, one array for each position")
    return [(*operand[:k], *operand[k + 1 :])] * len(eqn.outvars)


def new(solver: Solver, eqn: JaxprEqn) -> list[Axes]:
    """New widths. An iota counts the seed's positions, and keeps those that are kept.

    Reads `shape`.
    """
    return [tuple(solver.fresh(n) for n in eqn.params["shape"])]


def random_bits(solver: Solver, eqn: JaxprEqn, key: Axes) -> list[Axes]:
    """out = axes of the key(s), then new widths. Reads `shape`."""
    return [(*key, *(solver.fresh(n) for n in eqn.params["shape"]))]


def bit_generator(solver: Solver, eqn: JaxprEqn, key: Axes) -> list[Axes]:
    """(raw key) -> (next key, bits of new widths). Reads `shape`."""
    for term in key:
        solver.pin(term, "words of a random key")
    return [key, tuple(solver.fresh(n) for n in eqn.params["shape"])]


def rng_uniform(solver: Solver, eqn: JaxprEqn, *_: Axes) -> list[Axes]:
    """(low, high) -> new widths. Reads `shape`."""
    return [tuple(solver.fresh(n) for n in eqn.params["shape"])]


def bitcast(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """Elementwise between types of equal width; otherwise a byte axis appears or goes: pinned."""
    if out_shape(eqn) == shape_of(eqn.invars[0]):
        return [operand]
    return pin_everything(solver, eqn, operand, reason="reinterpreted at another item size")


def keys(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
    """Random keys: made, split and unpacked at fixed sizes."""
    for axes in operands:
        for term in axes:
            solver.pin(term, "indexes random keys")
    return [
        fixed_axes(solver, out_shape(eqn, i), "indexes random keys")
        for i in range(len(eqn.outvars))
    ]


def shaped(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the result."""
    return {"shape": sizes.shape(step.results[0])}


def reshaped(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`new_sizes` from the result."""
    return {"new_sizes": sizes.shape(step.results[0])}


def bits_drawn(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the result, less the axes of the keys."""
    return {"shape": sizes.shape(step.results[0])[len(step.operands[0]) :]}


def bits_generated(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`shape` from the second result."""
    return {"shape": sizes.shape(step.results[1])}


def tiled(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`reps` from the sizes before and after."""
    return {
        "reps": tuple(
            sizes.of(after) // sizes.of(before) if n > 1 else n
            for before, after, n in zip(
                step.operands[0], step.results[0], step.eqn.params["reps"], strict=True
            )
        )
    }


def sliced(step: Step, sizes: Sizes) -> dict[str, Any]:
    """The limits are moved to where the seed's positions went."""
    params, (operand,) = step.eqn.params, step.operands

    def moved(positions: Sequence[int]) -> tuple[int, ...]:
        return tuple(sizes.prefix(term, n) for term, n in zip(operand, positions, strict=True))

    starts, limits = params["start_indices"], params["limit_indices"]
    empty = [start == limit for start, limit in zip(starts, limits, strict=True)]
    return {
        "start_indices": moved([0 if e else n for n, e in zip(starts, empty, strict=True)]),
        "limit_indices": moved([0 if e else n for n, e in zip(limits, empty, strict=True)]),
    }


def cut(step: Step, sizes: Sizes) -> dict[str, Any]:
    """`sizes` from the results."""
    k = step.eqn.params["axis"]
    return {"sizes": tuple(sizes.of(result[k]) for result in step.results)}


def padded_again(step: Step, sizes: Sizes) -> dict[str, Any]:
    """Low and high padding from the ends of the result."""
    config = []
    for term, result, (low, high, interior) in zip(
        step.operands[0], step.results[0], step.eqn.params["padding_config"], strict=True
    ):
        if low >= 0 and high >= 0 and (interior == 0 or term.size <= 1):
            low = sizes.prefix(result, low)
            high = sizes.of(result) - low - sizes.of(term)
        config.append((low, high, interior))
    return {"padding_config": tuple(config)}


def _moves(couple: Rule, params: Params, **parts: Any) -> Record:
    """A primitive that moves what it gets: signs stay."""
    common: dict[str, Any] = {"sign": kept, "price": FREE, "emission": again}
    return Record(couple=couple, params=params, **(common | parts))


def _makes(couple: Rule, params: Params, **parts: Any) -> Record:
    """A primitive that makes new values, of which nothing is known."""
    return _moves(couple, params, **({"sign": anything, "flow": opaque} | parts))


RECORDS: dict[Primitive, Record] = {
    p.bitcast_convert_type_p: _moves(bitcast, reads("new_dtype"), sign=rooted),
    p.broadcast_in_dim_p: _moves(
        broadcast_in_dim,
        reads("broadcast_dimensions", "shape", "sharding"),
        emission=shaped,
        flow=placed,
    ),
    p.concatenate_p: _moves(concatenate, reads("dimension"), sign=joined),
    p.iota_p: _makes(
        new,
        reads("dimension", "dtype", "shape", "sharding"),
        sign=not_below,
        emission=shaped,
        as_seed=True,
    ),
    p.pad_p: _moves(pad, reads("padding_config"), sign=padded, emission=padded_again),
    p.random_bits_p: _makes(
        random_bits,
        reads("bit_width", "shape"),
        emission=bits_drawn,
        as_seed=True,
        flow=None,
    ),
    p.random_seed_p: _makes(keys, reads("impl")),
    p.random_split_p: _makes(keys, reads("shape")),
    p.reshape_p: _moves(reshape, reads("dimensions", "new_sizes", "sharding"), emission=reshaped),
    p.rev_p: _moves(rev, reads("dimensions")),
    p.rng_bit_generator_p: _makes(
        bit_generator,
        reads("algorithm", "dtype", "out_sharding", "shape"),
        emission=bits_generated,
        as_seed=True,
    ),
    p.rng_uniform_p: _makes(rng_uniform, reads("shape"), emission=shaped, as_seed=True),
    p.slice_p: _moves(slice_, reads("limit_indices", "start_indices", "strides"), emission=sliced),
    p.squeeze_p: _moves(squeeze, reads("dimensions")),
    p.transpose_p: _moves(transpose, reads("permutation")),
    empty_p: _makes(new, reads("dtype", "out_sharding", "shape"), emission=shaped),
    random_unwrap_p: _makes(keys, reads()),
    random_wrap_p: _makes(keys, reads("impl")),
    split_p: _moves(split, reads("axis", "sizes"), emission=cut),
    stack_p: _moves(stack, reads("axis"), sign=joined),
    tile_p: _moves(tile, reads("reps"), emission=tiled),
    unstack_p: _moves(unstack, reads("axis")),
}
