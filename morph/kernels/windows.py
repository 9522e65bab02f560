"""What a factorized kernel does where it meets a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from morph.kernels.contract import (
    Labels,
    contract,
    joined,
    merged,
)
from morph.kernels.factorized import Factorized
from morph.kernels.products import Params, precision


def convolve(params: Params, lhs: Any, rhs: Any) -> Any:
    """`conv_general_dilated` with a factorized kernel; None where groups cut through a factor.

    The cores of the input's channels come first, then those with axes of the window, one
    convolution each, then all others. Channels that a window's core does not sum over pass it: as
    groups where it carries their label (CP: depthwise), else as a part of the batch. The groups of
    a grouped convolution are such channels: a label that the map, the cores of the kernel's
    outputs and the result share, so that all groups use the other cores together.

    Args:
        params: of the equation.
        lhs: the map, an array.
        rhs: the kernel.
    """
    whole_batch = params["batch_group_count"] == 1
    if not whole_batch or not isinstance(rhs, Factorized) or isinstance(lhs, Factorized):
        return None
    numbers = params["dimension_numbers"]
    kernel = _window_whole(rhs) if rhs.format.kind == "tucker" else rhs
    split = _by_group(kernel, numbers.rhs_spec[0], params["feature_group_count"])
    if split is None:
        return None
    kernel, groups = split
    outs, ins, *windows = (kernel.format.axes[k] for k in numbers.rhs_spec)
    if any(len(window) > 1 for window in windows):
        return None
    cores = dict(zip(kernel.format.labels, kernel.cores, strict=True))
    seen = {*joined(windows)}
    middle = [own for own in cores if seen & {*own}]
    first = [own for own in cores if {*ins} & {*own} and not ({*outs} | seen) & {*own}]
    last = [own for own in cores if own not in middle and own not in first]

    places = tuple(f"x{k}" for k in range(len(windows)))
    sizes = kernel.sizes
    batch, feature, *spatial = numbers.lhs_spec
    x = jnp.transpose(lhs, [batch, *spatial, feature])
    taps = _Taps.of(params, windows)
    if not middle:
        x = taps.pick(x)
    have = (*groups, *ins)
    x = x.reshape([*x.shape[:-1], *(sizes[label] for label in have)])
    with precision(params):
        if first:
            needed = {*joined([*middle, *last]), *outs}
            before = have
            have = tuple(dict.fromkeys(n for n in joined([before, *first]) if n in needed))
            x = contract(
                [x, *(cores[own] for own in first)],
                [("n", *places, *before), *first],
                ("n", *places, *have),
            )
        for k, own in enumerate(middle):
            needed = {*joined([*middle[k + 1 :], *last]), *outs}
            x, have = taps.convolve(x, have, cores[own], own, needed, whole=k == 0)
        x = contract(
            [x, *(cores[own] for own in last)],
            [("n", *places, *have), *last],
            ("n", *places, *outs),
        )
    batch, feature, *spatial = numbers.out_spec
    order = [batch, *spatial, feature]
    x = x.reshape([*x.shape[: 1 + len(places)], math.prod(sizes[label] for label in outs)])
    return jnp.transpose(x, [order.index(k) for k in range(x.ndim)])


def _by_group(kernel: Factorized, axis: int, groups: int) -> tuple[Factorized, Labels] | None:
    """The kernel with labels for the groups in front of its outputs, and these; None if uneven.

    A label that holds groups and outputs of each becomes two.
    """
    leading: list[str] = []
    labels, sizes = list(kernel.format.axes[axis]), kernel.sizes
    left = groups
    while left > 1:
        label = labels.pop(0)
        length = sizes[label]
        if left % length == 0:
            leading.append(label)
            left //= length
        elif length % left == 0:
            kernel = _cut(kernel, label, left)
            leading.append(f"{label}/g")
            labels.insert(0, label)
            left = 1
        else:
            return None
    axes = list(kernel.format.axes)
    axes[axis] = (*leading, *labels)
    return replace(kernel, format=replace(kernel.format, axes=tuple(axes))), tuple(leading)


def _cut(kernel: Factorized, label: str, count: int) -> Factorized:
    """The kernel with a label as two: `count` in front, and the rest, in all cores."""
    cores, labels = [], []
    for core, own in zip(kernel.cores, kernel.format.labels, strict=True):
        if label in own:
            k = own.index(label)
            core = core.reshape([*core.shape[:k], count, -1, *core.shape[k + 1 :]])
            own = (*own[:k], f"{label}/g", *own[k:])
        cores.append(core)
        labels.append(own)
    return Factorized(cores=tuple(cores), format=replace(kernel.format, labels=tuple(labels)))


def _window_whole(kernel: Factorized) -> Factorized:
    """Full Tucker with the window's factors, which are tiny, taken into the core: Tucker-2."""
    labels = dict(zip(kernel.format.names, kernel.format.labels, strict=True))
    cores = dict(zip(kernel.format.names, kernel.cores, strict=True))
    names = [name for name in labels if name.startswith("s")]
    bonds = {f"r_{name}": name for name in names}
    core = tuple(bonds.get(label, label) for label in labels["core"])
    whole = contract(
        [cores["core"], *(cores[name] for name in names)],
        [labels["core"], *(labels[name] for name in names)],
        core,
    )
    kept = [name for name in labels if name not in names]
    return Factorized(
        cores=tuple(whole if name == "core" else cores[name] for name in kept),
        format=replace(
            kernel.format,
            names=tuple(kept),
            labels=tuple(core if name == "core" else labels[name] for name in kept),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class _Taps:
    """What a convolution does along each axis of its window.

    Attributes:
        labels: of the axes; None for one that no core has, of length 1.
        strides: of the window.
        padding: (low, high).
        lhs_dilation: of the map.
        rhs_dilation: of the window.
    """

    labels: tuple[str | None, ...]
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    lhs_dilation: Sequence[int]
    rhs_dilation: Sequence[int]

    @classmethod
    def of(cls, params: Params, windows: Sequence[Labels]) -> _Taps:
        """From the parameters of a convolution."""
        return cls(
            labels=tuple(window[0] if window else None for window in windows),
            strides=params["window_strides"],
            padding=params["padding"],
            lhs_dilation=params["lhs_dilation"],
            rhs_dilation=params["rhs_dilation"],
        )

    def pick(self, x: Any) -> Any:
        """What a window of length 1 reads of a map [N, ..., C]."""
        config = [
            (*ends, dilation - 1)
            for ends, dilation in zip(self.padding, self.lhs_dilation, strict=True)
        ]
        if any(map(any, config)):
            x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
        return x[:, *(slice(None, None, stride) for stride in self.strides)]

    def convolve(
        self, x: Any, have: Labels, core: Any, own: Labels, needed: set[str], *, whole: bool
    ) -> tuple[Any, Labels]:
        """One convolution with a core.

        Args:
            x: the map so far, [N, ..., *have].
            have: the labels of its channels.
            core: with at least one axis of the window.
            own: its labels.
            needed: the labels that are needed afterwards.
            whole: whether it takes along the axes of the window that no core has.

        Returns:
            The map [N, ..., *labels], and those labels.
        """
        rank = len(self.labels)
        places = tuple(f"x{k}" for k in range(rank))
        summed = tuple(n for n in have if n in own and n not in needed)
        groups = tuple(n for n in have if n in own and n in needed)
        passing = tuple(n for n in have if n not in own)
        new = tuple(n for n in own if n not in have and n not in self.labels)
        sizes = dict(zip(("n", *places, *have), x.shape, strict=True))
        sizes.update(zip(own, core.shape, strict=True))
        taken = [n in own or (whole and n is None) for n in self.labels]

        def mine(values: Sequence[Any], else_: Any) -> list[Any]:
            return [v if t else else_ for v, t in zip(values, taken, strict=True)]

        window = [(n,) if n is not None and n in own else () for n in self.labels]
        last, spec = rank + 1, tuple(range(1, rank + 1))
        x = jax.lax.conv_general_dilated(
            merged(
                x,
                ("n", *places, *have),
                [("n", *passing), *((place,) for place in places), (*groups, *summed)],
            ),
            merged(core, own, [*window, summed, (*groups, *new)]),
            window_strides=mine(self.strides, 1),
            padding=mine(self.padding, (0, 0)),
            lhs_dilation=mine(self.lhs_dilation, 1),
            rhs_dilation=mine(self.rhs_dilation, 1),
            dimension_numbers=jax.lax.ConvDimensionNumbers(
                (0, last, *spec), (last, rank, *range(rank)), (0, last, *spec)
            ),
            feature_group_count=math.prod(sizes[n] for n in groups),
        )
        x = x.reshape([
            *(sizes[n] for n in ("n", *passing)),
            *x.shape[1:-1],
            *(sizes[n] for n in (*groups, *new)),
        ])  # fmt: skip
        have = (*passing, *groups, *new)
        at = ("n", *passing, *places, *groups, *new)
        return jnp.transpose(x, [at.index(n) for n in ("n", *places, *have)]), have
