"""All that Morph knows of one primitive: one record, keyed by the Primitive object (see `table`).

A record says how widths couple, which parameters it understands, which signs results have, what the
primitive costs and how it is evaluated at other sizes. Where operands' axes go follows from the
coupling and is said only where it differs. A part that is None was not said: `lacks` names it, and
a test lets none of JAX's own primitives lack any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from regularizers.primitives.axes import Axis
from regularizers.primitives.coupling import Rule
from regularizers.primitives.jaxprs import JaxprEqn
from regularizers.primitives.poles import PoleRule, finite
from regularizers.primitives.signs import SignRule
from regularizers.primitives.step import Destinations, Operation, Step
from regularizers.primitives.terms import Axes, Term

Params: TypeAlias = Mapping[str, Any]
Factors: TypeAlias = tuple[Axis, ...]
FlowRule: TypeAlias = Callable[[Step], Destinations | None]

ANY: Final = "any value"


def reads(*names: str, **only: Any) -> Params:
    """The parameters that a record understands; of those with a value only that one."""
    return {**dict.fromkeys(names, ANY), **only}


class Sizes(Protocol):
    """What terms measure now, at the widths that a function is evaluated at again."""

    def of(self, term: Term, /) -> int:
        """The size of a term."""
        ...

    def shape(self, axes: Axes, /) -> tuple[int, ...]:
        """The shape of an array."""
        ...

    def prefix(self, term: Term, n: int, /) -> int:
        """The size of what the first `n` positions of the seed's became."""
        ...


# The static parameters that change.
EmissionRule: TypeAlias = Callable[[Step, Any], dict[str, Any]]


def again(step: Step, sizes: Sizes) -> dict[str, Any]:
    """Bound again as it is: all shapes come from the operands."""
    del step, sizes
    return {}


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a contraction costs.

    Attributes:
        factors: the axes whose sizes, multiplied, are its multiply-adds.
        name: for people: kind of operation, kernel window, input and output channels.
    """

    factors: Callable[[Operation], Factors]
    name: Callable[[Operation], tuple[str, tuple[int, ...], Axis, Axis]] | None = None


@dataclass(frozen=True)
class Unpriced:
    """What is no contraction: `free`, or work that no cost counts and that is named where it is."""

    is_free: bool


FREE: Final = Unpriced(is_free=True)  # elementwise, reductions, pooling, data movement
UNCOUNTED: Final = Unpriced(is_free=False)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of one primitive.

    Attributes:
        couple: `rule(solver, eqn, *operands) -> results`: how widths couple.
        params: the parameters that all parts understand (`reads`); an equation with another, or
            with a value that they do not, is pinned.
        sign: which signs results may have, and so where they are zero.
        price: what it costs: a `Price`, `FREE` or `UNCOUNTED`.
        emission: the static parameters that change with the sizes (`again` where none does).
        flow: where operands' axes go, if not where the coupling puts their widths.
        pole: where results are not finite because operands are zero.
        sums: whether an axis that goes nowhere is summed away (else it is looked up, or cut off).
        as_seed: evaluated at the seed's shape and sliced: every channel that is kept keeps its
            position in an iota, and the random numbers that it had.
    """

    couple: Rule
    params: Params | None = None
    sign: SignRule | None = None
    price: Price | Unpriced | None = None
    emission: EmissionRule | None = None
    flow: FlowRule | None = None
    pole: PoleRule = finite
    sums: bool = False
    as_seed: bool = False

    @property
    def lacks(self) -> tuple[str, ...]:
        """The parts that were not said."""
        parts = ("params", "sign", "price", "emission")
        return tuple(part for part in parts if getattr(self, part) is None)

    @property
    def contracts(self) -> bool:
        """Whether it is a matrix product, a convolution or their like."""
        return isinstance(self.price, Price)

    def misread(self, eqn: JaxprEqn) -> str:
        """The parameter that is not understood, e.g. `mode=3`; "" if there is none."""
        if self.params is None:
            return ""
        for name, value in eqn.params.items():
            known = self.params.get(name, _UNKNOWN)
            if known is _UNKNOWN or not (known is ANY or value == known):
                return f"{name}={value!r}"
        return ""


_UNKNOWN: Final = object()
