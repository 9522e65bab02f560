"""The words of an architecture: read first."""

from __future__ import annotations

from dataclasses import dataclass

from regularizers.primitives.axes import Axis

FRESH = -1  # the parent of a channel that has none


@dataclass(frozen=True, kw_only=True)
class ResizedGroup:
    """What one channel group became.

    Attributes:
        seed_width: its width in the seed network.
        parents: for each channel now, the seed channel that it comes from, or -1 (`FRESH`).
        members: the paths of the variables that carry it.
        mean_width: means over it divide by this width; None for the seed's. Shrinking leaves it, so
            that the function stays the same; a network that is drawn afresh counts its own.
    """

    seed_width: int
    parents: tuple[int, ...]
    members: tuple[str, ...] = ()
    mean_width: int | None = None

    @property
    def width(self) -> int:
        """Its width now."""
        return len(self.parents)

    @property
    def unchanged(self) -> bool:
        """True if it is the seed's, channel by channel."""
        return self.width == self.seed_width and all(i == p for i, p in enumerate(self.parents))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One product or convolution: FLOPs = coefficient x the sizes of `flop_axes`."""

    path: str
    op: str
    kernel: tuple[int, ...]
    in_axis: Axis
    out_axis: Axis
    flop_coefficient: float
    flop_axes: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A block that left the network.

    Attributes:
        name: as in `ChannelGraph.blocks`.
        kind: `residual` or `tower`.
        variables: the paths of the variables that left with it.
        layers: its products and convolutions.
    """

    name: str
    kind: str
    variables: tuple[str, ...]
    layers: tuple[str, ...]
