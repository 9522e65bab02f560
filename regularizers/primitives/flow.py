"""Where the axes of an operand go: which axes of the results they become.

`to[i][k]` are the axes of the results that axis `k` of operand `i` is found on again. An axis
without destination is summed away, looked up, or cut off. It follows from how widths couple: an
operand's axis is found wherever a width of it is. The roles of variables and the exactness of
groups are both read off this.
"""

from __future__ import annotations

from collections.abc import Sequence

from regularizers.primitives.facts import Fact
from regularizers.primitives.jaxprs import JaxprEqn, shape_of
from regularizers.primitives.record import Record
from regularizers.primitives.step import Destinations, Step
from regularizers.primitives.terms import Solver, atoms


def same(step: Step) -> Destinations:
    """Axis k stays axis k, of size 1 too; operands of another rank take no part."""
    rank = len(step.results[0])
    return [
        [(k,) for k in range(rank)] if len(axes) == rank else [()] * len(axes)
        for axes in step.operands
    ]


def opaque(step: Step) -> None:
    """What comes out is something else: nothing is followed through it."""
    del step


def implied(record: Record, eqn: JaxprEqn, facts: Sequence[Fact] = ()) -> Destinations:
    """What the coupling rule implies.

    The rule is asked on new widths: those at hand may have been tied by other equations.
    """
    solver = Solver(facts)
    operands = [tuple(map(solver.fresh, shape_of(v))) for v in eqn.invars]
    results = record.couple(solver, eqn, *operands)
    rank = max((len(axes) for axes in results), default=0)
    widths = [
        {atom for axes in results if k < len(axes) for atom in atoms(axes[k])} for k in range(rank)
    ]
    return [
        [
            tuple(k for k, found in enumerate(widths) if not found.isdisjoint(atoms(term)))
            for term in axes
        ]
        for axes in operands
    ]
