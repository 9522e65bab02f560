"""The vocabulary of channel graphs: read first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from regularizers.primitives.axes import Axis

UNUSED = "unused"  # the kind of a variable that the traced call does not read


@dataclass(frozen=True, kw_only=True)
class Member:
    """One axis of one variable that carries a group."""

    path: str
    axis: int
    produces: bool
    consumes: bool
    kind: str  # kernel, scale, shift, table; statistic where it is not trained

    def __str__(self) -> str:
        verb = verbs(produces=self.produces, consumes=self.consumes)
        return f"{self.path} axis {self.axis} ({self.kind}, {verb})"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A layer that sees a number in dead channels, which its bias can take.

    Attributes:
        kernel: the path of its kernel.
        axis: the kernel's axis along which the dead channels lie.
        free: the axes of the kernel that are those of the bias, in order.
        bias: the path of its bias.
        number: what a dead channel holds, e.g. 1/2 behind a sigmoid.
    """

    kernel: str
    axis: int
    free: tuple[int, ...]
    bias: str
    number: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """Axis positions over variables and activations that must keep the same width.

    Attributes:
        name: of the first layer that produces it.
        width: the number of channels.
        members: the axes of variables that carry it.
        exact: whether removing dead channels is the same as zeroing what produces them.
        why_inexact: why not, and where.
        folds: the layers whose biases can take what dead channels hold; then `ChannelGraph.fold`
            makes removing them exact.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    exact: bool
    why_inexact: str = ""
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One leaf of the variables: its seed shape and what its axes are made of."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[Axis, ...]
    produces: frozenset[int]  # axes
    consumes: frozenset[int]  # axes
    kind: str
    trained: bool

    def at(self, shape: tuple[int, ...]) -> Variable:
        """The variable where its fixed axes are as long as those of `shape`, if nobody trains it.

        A cache has them from the call: of any batch size, and for any length.
        """
        if self.trained or len(shape) != len(self.shape):
            return self
        axes = [
            n if isinstance(axis, int) else axis for axis, n in zip(self.axes, shape, strict=True)
        ]
        sizes = [
            n if isinstance(axis, int) else own
            for axis, own, n in zip(self.axes, self.shape, shape, strict=True)
        ]
        return replace(self, axes=tuple(axes), shape=tuple(sizes))


@dataclass(frozen=True, kw_only=True)
class PinnedAxis:
    """One axis of a variable, or a stretch of it, whose width is fixed."""

    path: str
    axis: int
    size: int


@dataclass(frozen=True, kw_only=True)
class PinGroup:
    """The axes that are fixed for one reason, at one line of the user's ("" where unknown)."""

    reason: str
    source: str
    axes: tuple[PinnedAxis, ...]


def layer_name(path: str) -> str:
    """`params/Block_0/Conv_0/kernel` -> `Block_0/Conv_0`."""
    parts = path.split("/")
    if len(parts) > 1 and parts[0] == "params":
        parts = parts[1:]
    return "/".join(parts[:-1] if len(parts) > 1 else parts)


def verbs(*, produces: bool, consumes: bool) -> str:
    """What an axis does with its groups, for people; what divides does neither."""
    said = [verb for verb, on in (("produces", produces), ("consumes", consumes)) if on]
    return " and ".join(said) or "left alone"
