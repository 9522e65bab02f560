"""Where the axes of an operand go: for each primitive, which result axes an operand axis becomes.

`destinations(step)[i][k]` are the axes of the (first) result that axis `k` of operand `i` is
found on again. An axis without destination is summed away. Both the roles of variables and the
exactness of groups are read off this one table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from regularizers.channels import jaxprs
from regularizers.channels.coupling import elementwise, indexing, reduction, shape
from regularizers.channels.inference import Step
from regularizers.channels.jaxprs import Primitive
from regularizers.channels.jaxprs import primitives as p

Destinations: TypeAlias = list[list[tuple[int, ...]]]
FlowRule: TypeAlias = Callable[[Step], Destinations]


def destinations(step: Step) -> Destinations | None:
    """The destinations of every operand axis of `step`; None for a primitive not in the table."""
    rule = FLOW.get(step.primitive)
    return rule(step) if rule else None


def same(step: Step) -> Destinations:
    """Axis k stays axis k; operands of another rank take no part."""
    rank = len(step.results[0])
    return [
        [(k,) for k in range(rank)] if len(axes) == rank else [()] * len(axes)
        for axes in step.operands
    ]


def without(step: Step, gone: Iterable[int]) -> Destinations:
    """The axes in `gone` have no destination; the others close ranks."""
    left = [k for k in range(len(step.operands[0])) if k not in set(gone)]
    return [
        [(left.index(k),) if k in left else () for k in range(len(axes))] for axes in step.operands
    ]


def _broadcast(step: Step) -> Destinations:
    return [[(k,) for k in step.eqn.params["broadcast_dimensions"]]]


def _reshape(step: Step) -> Destinations:
    before = [term.size for term in step.operands[0]]
    to: list[tuple[int, ...]] = [()] * len(before)
    if 0 not in before:
        for ins, outs in shape.chunks(before, [term.size for term in step.results[0]]):
            for k in ins:
                to[k] = tuple(outs)
    return [to]


def _transpose(step: Step) -> Destinations:
    permutation = list(step.eqn.params["permutation"])
    return [[(permutation.index(k),) for k in range(len(permutation))]]


def _random_bits(step: Step) -> Destinations:
    return [[(k,) for k in range(len(step.operands[0]))]]


def _dot_general(step: Step) -> Destinations:
    sums, batches = step.eqn.params["dimension_numbers"]
    return _contracted(step, sums, batches)


def _contracted(
    step: Step, gone: Sequence[Sequence[int]], batches: Sequence[Sequence[int]]
) -> Destinations:
    """A product's result: batch axes, then the axes of each factor that are not gone."""
    result: Destinations = []
    position = len(batches[0])
    for axes, summed, batch in zip(step.operands, gone, batches, strict=False):
        to: list[tuple[int, ...]] = []
        for k in range(len(axes)):
            if k in batch:
                to.append((batch.index(k),))
            elif k in summed:
                to.append(())
            else:
                to.append((position,))
                position += 1
        result.append(to)
    return result


def _conv(step: Step) -> Destinations:
    numbers = step.eqn.params["dimension_numbers"]
    lhs: list[tuple[int, ...]] = [()] * len(step.operands[0])
    rhs: list[tuple[int, ...]] = [()] * len(step.operands[1])
    lhs[numbers.lhs_spec[0]] = (numbers.out_spec[0],)
    rhs[numbers.rhs_spec[0]] = (numbers.out_spec[1],)
    if step.eqn.params["feature_group_count"] > 1:  # whole groups pass, what is in them is summed
        lhs[numbers.lhs_spec[1]] = (numbers.out_spec[1],)
    return [lhs, rhs]


def _gather(step: Step) -> Destinations:
    numbers = step.eqn.params["dimension_numbers"]
    rank = len(step.results[0])
    window = iter(numbers.offset_dims)
    whole = set(numbers.collapsed_slice_dims) | set(numbers.operand_batching_dims)
    operand: list[tuple[int, ...]] = [
        () if k in whole else (next(window),) for k in range(len(step.operands[0]))
    ]
    batch = [(k,) for k in range(rank) if k not in numbers.offset_dims]
    for k, i in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        operand[k] = batch[i]
    return [operand, [*batch, ()]]


def _stack(step: Step) -> Destinations:
    k = step.eqn.params["axis"]
    return [[(i + (i >= k),) for i in range(len(axes))] for axes in step.operands]


def _scatter(step: Step) -> Destinations:
    operand, indices, updates = step.operands
    to, _ = indexing.scatter_axes(step.eqn)
    return [
        [(k,) for k in range(len(operand))],
        [()] * len(indices),
        [(to[k],) if k in to else () for k in range(len(updates))],
    ]


def _ragged_dot(step: Step) -> Destinations:
    numbers = step.eqn.params["ragged_dot_dimension_numbers"]
    (lhs_sum, rhs_sum), batches = numbers.dot_dimension_numbers
    factors = _contracted(step, [lhs_sum, (*rhs_sum, *numbers.rhs_group_dimensions)], batches)
    return factors + [[()] * len(axes) for axes in step.operands[2:]]


FLOW: dict[Primitive, FlowRule] = {
    **dict.fromkeys(elementwise.RULES.keys() - elementwise.OBSERVERS, same),
    **dict.fromkeys(
        (
            jaxprs.split_p,
            p.bitcast_convert_type_p,
            p.concatenate_p,
            p.cumlogsumexp_p,
            p.cummax_p,
            p.cummin_p,
            p.cumprod_p,
            p.cumsum_p,
            p.dynamic_slice_p,
            p.dynamic_update_slice_p,
            p.pad_p,
            p.reduce_window_max_p,
            p.reduce_window_min_p,
            p.reduce_window_p,
            p.reduce_window_sum_p,
            p.rev_p,
            p.slice_p,
            p.approx_top_k_p,
            p.select_and_gather_add_p,
            p.select_and_scatter_add_p,
            p.sort_p,
            p.top_k_p,
            jaxprs.tile_p,
        ),
        same,
    ),
    **dict.fromkeys(indexing.SCATTERS, _scatter),
    jaxprs.ragged_dot_general_p: _ragged_dot,
    jaxprs.stack_p: _stack,
    jaxprs.unstack_p: lambda step: without(step, [step.eqn.params["axis"]]),
    p.fft_p: same,
    **dict.fromkeys(
        reduction.REDUCTIONS,
        lambda step: without(step, reduction.reduced_axes(step.eqn)),
    ),
    p.squeeze_p: lambda step: without(step, step.eqn.params["dimensions"]),
    p.broadcast_in_dim_p: _broadcast,
    p.conv_general_dilated_p: _conv,
    p.dot_general_p: _dot_general,
    p.gather_p: _gather,
    p.random_bits_p: _random_bits,
    p.reshape_p: _reshape,
    p.transpose_p: _transpose,
}
