"""Which consumers see a dead channel as exactly zero."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from regularizers.channels.dead import Use, find_dead
from regularizers.channels.exactness import NOTHING, Signs, find_inexact
from regularizers.primitives import jaxprs
from regularizers.primitives.signs import ANY, ZERO
from regularizers.primitives.step import Body
from regularizers.primitives.terms import Atom, atoms


def inexact_reasons(
    body: Body,
    named: Mapping[str, Atom],
    produces: Sequence[Collection[int]],
    wanted: Callable[[int, str], bool] = lambda variable, group: True,
) -> tuple[dict[str, str], dict[str, list[Use]], set[tuple[int, int]]]:
    """The groups that are not exact when the given axes are zeroed.

    Args:
        body: the inferred function.
        named: the groups.
        produces: the axes of every variable.
        wanted: whether those of variable i are zeroed for a group.

    Returns:
        The reason for each; what biases can take of those that can be folded; and the axes of
        variables, (position, axis), that would have to be zeroed for the others to be exact.
    """
    groups = set(named.values())
    names = {atom: name for name, atom in named.items()}
    inputs = zeroed_inputs(body, groups, produces, lambda i, atom: wanted(i, names[atom]))
    exactness = find_inexact(body, groups, inputs)
    reasons: dict[str, str] = {}
    uses: dict[str, list[Use]] = {}
    closed: set[tuple[int, int]] = set()
    if not exactness.reasons:
        return reasons, uses, closed
    dead = find_dead(body, exactness, len(produces))
    for name, atom in named.items():
        if atom in dead.reasons:
            reason, source = dead.reasons[atom]
            where = jaxprs.source_line(source)
            reasons[name] = f"{reason} [{where}]" if where else reason
        elif atom in dead.closable:
            closed |= dead.closable[atom]
            reasons[name] = "its dead channels are not zero where kernels take them in"
        elif atom in dead.uses:
            uses[name] = dead.uses[atom]
            number = uses[name][0].number
            reasons[name] = f"its dead channels are {number:.6g}; biases can take it, by graph.fold"
    return reasons, uses, closed


def zeroed_inputs(
    body: Body,
    groups: Collection[Atom],
    produces: Sequence[Collection[int]],
    wanted: Callable[[int, Atom], bool] = lambda variable, group: True,
) -> list[Signs]:
    """What is known of each input of `body`: the dead slices that are zero."""
    zeroed = [
        Signs(
            ANY,
            {
                (k, atom): ZERO
                for k in own
                for atom in atoms(axes[k])
                if atom in groups and wanted(i, atom)
            },
        )
        for i, (own, axes) in enumerate(zip(produces, body.inputs, strict=False))
    ]
    return zeroed + [NOTHING] * (len(body.inputs) - len(zeroed))
