"""Factorizations and transforms: the axes that they work on are pinned, batch axes carry."""

from __future__ import annotations

from regularizers.channels.coupling.rule import (
    Rule,
    fixed_axes,
    out_shape,
    pin_everything,
    together,
)
from regularizers.channels.jaxprs import JaxprEqn, Primitive, lu_pivots_to_permutation_p, shape_of
from regularizers.channels.jaxprs import primitives as p
from regularizers.channels.terms import Axes, Solver


def batched(core: int, reason: str) -> Rule:
    """The rule of an operation on the last `core` axes of its first operand."""

    def rule(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
        """(batch axes, own axes) -> (batch axes, own axes): own axes are pinned."""
        lead = len(operands[0]) - core
        for axes in operands:
            for term in axes[lead:]:
                solver.pin(term, reason)
        shape = shape_of(eqn.invars[0])[:lead]
        batch = together(solver, [axes[:lead] for axes in operands], shape)
        return [
            (*batch, *fixed_axes(solver, out_shape(eqn, i)[lead:], reason))
            for i in range(len(eqn.outvars))
        ]

    return rule


def fft(solver: Solver, eqn: JaxprEqn, operand: Axes) -> list[Axes]:
    """The transformed axes, the last ones, are pinned. Reads `fft_lengths`."""
    return list(
        batched(len(eqn.params["fft_lengths"]), "Fourier-transformed")(solver, eqn, operand)
    )


def pinning(reason: str) -> Rule:
    """The rule of an operation that is known, and whose widths all stay."""

    def rule(solver: Solver, eqn: JaxprEqn, *operands: Axes) -> list[Axes]:
        """Everything is pinned."""
        return pin_everything(solver, eqn, *operands, reason=reason)

    return rule


_MATRIX = batched(2, "axis of a matrix that is factorized or solved")

# Known, and pinned as a whole.
PINNED: dict[Primitive, Rule] = {
    p.linear_solve_p: pinning("solved for by functions at its own size"),
    p.random_gamma_p: pinning("drawn with a random key for each position"),
    p.threefry2x32_p: pinning("words of random numbers, which depend on how many are drawn"),
    p.tridiagonal_solve_p: pinning("axis of a linear system"),
    p.all_gather_p: pinning("gathered from all devices"),
    p.all_to_all_p: pinning("exchanged among devices"),
    p.axis_index_p: pinning("counts devices"),
}

RULES: dict[Primitive, Rule] = {
    **PINNED,
    **dict.fromkeys(
        (
            p.cholesky_p,
            p.eig_p,
            p.eigh_p,
            p.hessenberg_p,
            p.householder_product_p,
            p.lu_p,
            p.qr_p,
            p.schur_p,
            p.svd_p,
            p.triangular_solve_p,
            p.tridiagonal_p,
        ),
        _MATRIX,
    ),
    p.fft_p: fft,
    lu_pivots_to_permutation_p: batched(1, "pivots of a matrix"),
}
