"""How optimizers lay out what they keep of a variable, so that their states can be sliced, too.

It stands here and not where optimizers are made: `Architecture.take` reads it, and `architecture`
is below `training`. It knows shapes and paths, and imports no optimizer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from morph.errors import ArchitectureError

Axes = tuple[int | None, ...]  # for each axis of a leaf, the axis of its variable; None if none
Shapes = tuple[tuple[int, ...], tuple[int, ...]]  # of a variable: in the seed, now


class Place(NamedTuple):
    """Where a leaf stands in a tree: `head/tail/key`, where `tail` names its variable."""

    owner: str  # the variable's path
    head: str
    tail: str
    key: str


# What `reg.proximal` keeps of every channel, by group, and of blocks, by name.
BY_GROUP, BY_BLOCK = ("protected", "held", "saliency", "channels"), "blocks"


def find_group(path: str, shape: tuple[int, ...], widths: Mapping[str, int]) -> str | None:
    """The channel group that a leaf [..., width] of `reg.proximal`'s state is kept of."""
    parts = path.split("/")
    for i, part in enumerate(parts):
        name = "/".join(parts[i + 1 :])
        if part in BY_GROUP and name in widths and shape[-1:] == (widths[name],):
            return name
    return None


def is_of_block(path: str, names: Collection[str]) -> bool:
    """Whether a leaf of `reg.proximal`'s state is kept of one of these blocks."""
    parts = path.split("/")
    return any(
        part == BY_BLOCK and "/".join(parts[i + 1 :]) in names for i, part in enumerate(parts)
    )


def find_place(path: str, variables: Mapping[str, str]) -> Place | None:
    """The variable that a leaf belongs to; below it there may be one key of a list.

    Args:
        path: of the leaf.
        variables: their paths, by all the names that they go under.
    """
    parts = path.split("/")
    for end in (len(parts), len(parts) - 1) if parts[-1].isdigit() else (len(parts),):
        for i in range(end):
            tail = "/".join(parts[i:end])
            if tail in variables:
                return Place(variables[tail], "/".join(parts[:i]), tail, "/".join(parts[end:]))
    return None


def axes_of(leaf: Any, path: str, place: Place, seed: tuple[int, ...]) -> Axes:
    """Which axes of its variable, of shape `seed`, a leaf runs along.

    Raises:
        ArchitectureError: if its shape is of no known layout.
    """
    shape = tuple(np.shape(leaf))
    history = len(shape) - len(seed)
    if shape == seed:
        return tuple(range(len(seed)))
    if place.head and shape in ((), (1,)):
        return (None,) * len(shape)  # a number that an optimizer keeps per variable, or none
    if place.head and history > 0 and shape[history:] == seed:
        return (*(None,) * history, *range(len(seed)))
    if place.key.isdigit() and shape == seed[int(place.key) :][:1]:
        return (int(place.key),)  # of a list with one vector per axis, as SM3 keeps it
    raise ArchitectureError(
        f"{path!r} has shape {list(shape)}; in the seed network {place.owner!r} has "
        f"{list(seed)}. Pass the seed's variables, or the state of an optimizer that keeps "
        "arrays of their shapes; start another with tx.init(architecture.take(variables))."
    )


class _Factored(NamedTuple):
    """What Adafactor keeps of one variable."""

    row: str  # the path of its means over the longest axis
    col: str  # over the second
    factored: bool  # whether it keeps these, or all squares
    seed: tuple[int, ...]
    now: tuple[int, ...]

    @property
    def shorter(self) -> tuple[int, int]:
        """The second longest axis, in the seed and now: its length decides."""
        return sorted(self.seed)[-2], sorted(self.now)[-2]


def adafactor_means(
    leaves: Mapping[str, Any], places: Collection[Place], shapes: Mapping[str, Shapes]
) -> dict[str, tuple[Any, Axes]]:
    """Adafactor's means, by path: those that stand there at the new widths, and their axes.

    Of the two longest axes of a variable `optax.scale_by_factored_rms` averages `v_row` over
    the longest and `v_col` over the second, if that is long enough; else it keeps `v`. How
    long is enough the state does not say, only between which lengths the limit is.

    Raises:
        ArchitectureError: if a variable might be factored otherwise at its new shape.
    """
    states = list(_factored(leaves, places, shapes))
    least = min((state.shorter[0] for state in states if state.factored), default=np.inf)
    most = max((state.shorter[0] for state in states if not state.factored), default=0)
    means: dict[str, tuple[Any, Axes]] = {}
    for state in states:
        longest, then = np.argsort(state.seed)[-2:], np.argsort(state.now)[-2:]  # as optax sorts
        length = state.shorter[1]
        if (length < least if state.factored else length > most) or (
            state.factored and set(longest) != set(then)
        ):
            raise ArchitectureError(
                f"{state.row!r} belongs to a variable of shape {list(state.seed)} that is "
                f"{list(state.now)} now: the state does not say along which axes, if any, the "
                "optimizer would factor it; start again with "
                "tx.init(architecture.take(variables))."
            )
        if state.factored:
            without = {longest[1]: leaves[state.row], longest[0]: leaves[state.col]}
            for path, axis in ((state.row, then[1]), (state.col, then[0])):
                rest = tuple(k for k in range(len(state.seed)) if k != axis)
                means[path] = (without[axis], rest)
    return means


def _factored(
    leaves: Mapping[str, Any], places: Iterable[Place], shapes: Mapping[str, Shapes]
) -> Iterable[_Factored]:
    """The variables of which there are `v_row`, `v_col` and `v`, with at least two axes."""
    for place in places:
        seed, now = shapes[place.owner]
        stem = place.head.removesuffix("v_row")
        row, col, full = (f"{stem}{name}/{place.tail}" for name in ("v_row", "v_col", "v"))
        if place.head.split("/")[-1] == "v_row" and {col, full} <= set(leaves) and seed[1:]:
            yield _Factored(row, col, tuple(np.shape(leaves[full])) != seed, seed, now)
