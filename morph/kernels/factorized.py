"""A factorized kernel: a tensor network that stands where the kernel stood."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from morph.kernels.contract import Labels, contract, sizes_of

STACK = "b0"  # the label of a stack of kernels that a loop takes one by one


@dataclass(frozen=True, kw_only=True)
class Format:
    """How cores make a kernel: a tensor network without its numbers.

    Attributes:
        kind: `svd`, `tt`, `tucker2`, `tucker` or `cp`; see `morph.kernels.formats`.
        names: of the cores.
        labels: for each core the labels of its axes; cores are summed over the labels they share.
        axes: for each axis of the dense kernel the labels that make it, the first the slowest.
        flipped: the labels that are read from their ends; only on the way through a function.
    """

    kind: str
    names: tuple[str, ...]
    labels: tuple[Labels, ...]
    axes: tuple[Labels, ...]
    flipped: frozenset[str] = frozenset()

    @property
    def bonds(self) -> Labels:
        """The labels of the ranks: those that are summed over."""
        open_ = {label for axis in self.axes for label in axis}
        return tuple(dict.fromkeys(n for own in self.labels for n in own if n not in open_))

    def without(self, label: str) -> Format:
        """The format of one slice along an axis that all cores share, e.g. a stack's."""
        return replace(
            self,
            labels=tuple(tuple(n for n in own if n != label) for own in self.labels),
            axes=tuple(axis for axis in self.axes if axis != (label,)),
        )

    def stacked(self, axis: int) -> Format:
        """The format of a stack of such kernels, along a new axis before the others or between."""
        return replace(
            self,
            labels=tuple((STACK, *own) for own in self.labels),
            axes=(*self.axes[:axis], (STACK,), *self.axes[axis:]),
        )

    def core_shapes(self, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
        """The shape of every core, from the length of every label."""
        return tuple(tuple(sizes[label] for label in own) for own in self.labels)

    def shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape of the dense kernel."""
        return tuple(math.prod(sizes[label] for label in axis) for axis in self.axes)

    def parameters(self, sizes: Mapping[str, int]) -> int:
        """How many numbers the cores hold."""
        return sum(map(math.prod, self.core_shapes(sizes)))


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, kw_only=True, eq=False)
class Factorized:
    """A kernel as a product of cores; a pytree, so that it stands in any tree of variables.

    Attributes:
        cores: arrays, in the order of `format.names`.
        format: how they make the kernel.
    """

    cores: tuple[Any, ...]
    format: Format

    @property
    def sizes(self) -> Mapping[str, int]:
        """The length of every label."""
        return sizes_of([core.shape for core in self.cores], self.format.labels)

    @property
    def ranks(self) -> dict[str, int]:
        """The bond dimensions."""
        sizes = self.sizes
        return {bond: sizes[bond] for bond in self.format.bonds}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the dense kernel."""
        return self.format.shape(self.sizes)

    @property
    def ndim(self) -> int:
        """The number of axes of the dense kernel."""
        return len(self.format.axes)

    @property
    def dtype(self) -> Any:
        """The type of the cores."""
        return self.cores[0].dtype

    @property
    def parameters(self) -> int:
        """How many numbers the cores hold."""
        return sum(math.prod(core.shape) for core in self.cores)

    def dense(self) -> Any:
        """The kernel, of shape `shape`."""
        own = self.straight()
        labels = tuple(label for axis in own.format.axes for label in axis)
        return contract(own.cores, own.format.labels, labels).reshape(self.shape)

    def straight(self) -> Factorized:
        """The same kernel with its cores flipped where the format is."""
        flipped = self.format.flipped
        if not flipped:
            return self
        cores = []
        for core, own in zip(self.cores, self.format.labels, strict=True):
            dims = [k for k, label in enumerate(own) if label in flipped]
            cores.append(jax.lax.rev(core, dims) if dims else core)
        return Factorized(cores=tuple(cores), format=replace(self.format, flipped=frozenset()))

    def flip(self, axes: Sequence[int]) -> Factorized:
        """The kernel with some axes reversed; the cores stay."""
        turned = {label for k in axes for label in self.format.axes[k]}
        return replace(self, format=replace(self.format, flipped=self.format.flipped ^ turned))

    def astype(self, dtype: Any) -> Factorized:
        """The same with cores of another type."""
        return replace(self, cores=tuple(core.astype(dtype) for core in self.cores))

    def transpose(self, permutation: Sequence[int]) -> Factorized:
        """The kernel with its axes in another order; the cores stay."""
        return self._with_axes(self.format.axes[k] for k in permutation)

    def reshape(self, shape: Sequence[int]) -> Factorized | None:
        """The kernel in another shape; None where that would cut through a label."""
        sizes = self.sizes
        labels = [label for axis in self.format.axes for label in axis]
        axes: list[Labels] = []
        for length in shape:
            axis: Labels = ()
            while (have := math.prod(sizes[label] for label in axis)) != length:
                if have > length or not labels:
                    return None
                axis = (*axis, labels.pop(0))
            axes.append(axis)
        if labels and math.prod(sizes[label] for label in labels) != 1:
            return None
        if labels:  # of length 1; an axis has to carry them
            if not axes:
                return None
            axes[-1] = (*axes[-1], *labels)
        return self._with_axes(axes)

    def _with_axes(self, axes: Iterable[Labels]) -> Factorized:
        return replace(self, format=replace(self.format, axes=tuple(axes)))

    def __str__(self) -> str:
        ranks = ", ".join(f"{bond} {rank}" for bond, rank in self.ranks.items())
        return f"{self.format.kind}{list(self.shape)} ({ranks}; {self.parameters:,} parameters)"

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], Format]:
        """The cores by name, and what is no array."""
        keys = map(jax.tree_util.DictKey, self.format.names)
        return list(zip(keys, self.cores, strict=True)), self.format

    def tree_flatten(self) -> tuple[tuple[Any, ...], Format]:
        """The same without names: a call does this each time."""
        return self.cores, self.format

    @classmethod
    def tree_unflatten(cls, format: Format, cores: Iterable[Any]) -> Factorized:
        """A factorized kernel of other cores."""
        return cls(cores=tuple(cores), format=format)


def is_factorized(leaf: Any) -> bool:
    """Whether a leaf is a factorized kernel; `is_leaf` for `jax.tree.map`."""
    return isinstance(leaf, Factorized)
