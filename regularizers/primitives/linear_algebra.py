"""Factorizations and transforms: the axes that they work on are pinned, batch axes carry."""

from __future__ import annotations

from typing import Any

from regularizers.primitives.coupling import (
    Rule,
    fixed_axes,
    out_shape,
    pin_everything,
    together,
)
from regularizers.primitives.flow import opaque, same
from regularizers.primitives.jaxprs import JaxprEqn, Primitive, lu_pivots_to_permutation_p, shape_of
from regularizers.primitives.jaxprs import primitives as p
from regularizers.primitives.record import FREE, UNCOUNTED, Record, again, reads
from regularizers.primitives.signs import anything, rooted
from regularizers.primitives.terms import Axes, Solver


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


def _record(couple: Rule, *params: str, **parts: Any) -> Record:
    """Work that no cost counts, of whose results nothing is known."""
    common: dict[str, Any] = {"sign": anything, "price": UNCOUNTED, "flow": opaque}
    return Record(couple=couple, params=reads(*params), emission=again, **(common | parts))


# Known, and pinned as a whole.
PINNED: dict[Primitive, Record] = {
    p.linear_solve_p: _record(
        pinning("solved for by functions at its own size"), "const_lengths", "jaxprs"
    ),
    p.random_gamma_p: _record(
        pinning("drawn with a random key for each position"), "log_space", price=FREE
    ),
    p.threefry2x32_p: _record(
        pinning("words of random numbers, which depend on how many are drawn"), price=FREE
    ),
    p.tridiagonal_solve_p: _record(pinning("axis of a linear system"), "perturb_singular"),
    p.all_gather_p: _record(
        pinning("gathered from all devices"),
        "all_gather_dimension", "axis_index_groups", "axis_name", "axis_size", "tiled",
        price=FREE,
    ),
    p.all_to_all_p: _record(
        pinning("exchanged among devices"),
        "axis_index_groups", "axis_name", "concat_axis", "split_axis", "tiled",
        price=FREE,
    ),
    p.axis_index_p: _record(pinning("counts devices"), "axis_name", price=FREE),
}  # fmt: skip

RECORDS: dict[Primitive, Record] = {
    **PINNED,
    p.cholesky_p: _record(_MATRIX),
    p.eig_p: _record(
        _MATRIX, "compute_left_eigenvectors", "compute_right_eigenvectors",
        "enable_eigvec_derivs", "implementation",
    ),
    p.eigh_p: _record(_MATRIX, "algorithm", "lower", "sort_eigenvalues", "subset_by_index"),
    p.hessenberg_p: _record(_MATRIX),
    p.householder_product_p: _record(_MATRIX),
    p.lu_p: _record(_MATRIX),
    p.qr_p: _record(_MATRIX, "full_matrices", "pivoting", "use_magma"),
    p.schur_p: _record(_MATRIX, "compute_schur_vectors", "select_callable", "sort_eig_vals"),
    p.svd_p: _record(_MATRIX, "algorithm", "compute_uv", "full_matrices", "subset_by_index"),
    p.triangular_solve_p: _record(
        _MATRIX, "conjugate_a", "left_side", "lower", "transpose_a", "unit_diagonal"
    ),
    p.tridiagonal_p: _record(_MATRIX, "lower"),
    p.fft_p: _record(fft, "fft_lengths", "fft_type", sign=rooted, flow=same),
    lu_pivots_to_permutation_p: _record(
        batched(1, "pivots of a matrix"), "permutation_size", price=FREE
    ),
}  # fmt: skip
