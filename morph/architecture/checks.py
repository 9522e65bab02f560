"""What a JSON Schema cannot say of an architecture; each raises `ArchitectureError`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from morph.architecture.parts import FRESH, Layer, ResizedGroup
from morph.errors import ArchitectureError
from morph.kernels.planned import PlannedKernel
from regularizers.channels.parts import Variable
from regularizers.messages import near
from regularizers.primitives import axes as ax


def check_groups(groups: Mapping[str, ResizedGroup], data: Mapping[str, Any]) -> None:
    """Widths as written in the records, and parents in range."""
    for name, group in groups.items():
        if data[name]["width"] != group.width:
            raise ArchitectureError(
                f"malformed architecture: group {name!r} says width "
                f"{data[name]['width']}, but lists {group.width} parents"
            )
        if any(not FRESH <= parent < group.seed_width for parent in group.parents):
            raise ArchitectureError(
                f"malformed architecture: group {name!r} has a parent outside 0.."
                f"{group.seed_width - 1}"
            )


def check_removed(gone: Collection[str], variables: Mapping[str, Variable]) -> None:
    """What left was there."""
    for path in gone:
        if path not in variables:
            raise ArchitectureError(
                f"malformed architecture: a removed block had {path!r}{near(path, variables)}"
            )


def check_factorized(
    factorized: Mapping[str, PlannedKernel], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Factorized kernels are variables of the network, of the shapes that these have now."""
    for path, kernel in factorized.items():
        if path not in shapes:
            raise ArchitectureError(
                f"malformed architecture: the network has no {path!r}, which is factorized"
                f"{near(path, shapes)}"
            )
        if kernel.shape != shapes[path]:
            raise ArchitectureError(
                f"malformed architecture: {path!r} has shape {list(shapes[path])}, but its "
                f"cores make {list(kernel.shape)}"
            )


def check_finite(width_multiplier: float | None, layers: Sequence[Layer]) -> None:
    """No number is infinite or none."""
    numbers = [width_multiplier or 0.0, *(layer.flop_coefficient for layer in layers)]
    if not np.all(np.isfinite(numbers)):
        raise ArchitectureError("malformed architecture: a number in it is not finite")


def check_axes(
    variables: Mapping[str, Variable], layers: Sequence[Layer], seed_widths: Mapping[str, int]
) -> None:
    """Every axis names groups that there are."""
    for where, axis in [
        *((path, axis) for path, v in variables.items() for axis in v.axes),
        *(
            (layer.path, axis)
            for layer in layers
            for axis in (layer.in_axis, layer.out_axis, *layer.flop_axes)
        ),
    ]:
        for name in ax.groups_of(axis):
            if name not in seed_widths:
                raise ArchitectureError(
                    f"malformed architecture: {where!r} names group {name!r}"
                    f"{near(name, seed_widths)}"
                )
        if not ax.is_ordered(axis, seed_widths):
            raise ArchitectureError(
                f"malformed architecture: an axis of {where!r} is put into an order of another "
                f"length than its own, in {axis}"
            )


def check_variables(variables: Mapping[str, Variable], seed_widths: Mapping[str, int]) -> None:
    """Shapes as the axes measure, roles along axes that there are, known dtypes."""
    for path, variable in variables.items():
        if len(variable.axes) != len(variable.shape):
            raise ArchitectureError(
                f"malformed architecture: {path!r} has {len(variable.shape)} lengths in its "
                f"shape, but {len(variable.axes)} axes"
            )
        sizes = tuple(ax.size(axis, seed_widths) for axis in variable.axes)
        if sizes != variable.shape:
            raise ArchitectureError(
                f"malformed architecture: {path!r} has shape {list(variable.shape)}, but its "
                f"axes measure {list(sizes)}"
            )
        odd = sorted(k for k in variable.produces | variable.consumes if k >= len(sizes))
        if odd:
            raise ArchitectureError(
                f"malformed architecture: {path!r} has {len(sizes)} axes, but produces or "
                f"consumes along axis {odd[0]}"
            )
        if not is_dtype(variable.dtype):
            raise ArchitectureError(
                f"malformed architecture: {path!r} has dtype {variable.dtype!r}, which "
                "does not exist"
            )


def check_layers(
    layers: Sequence[Layer],
    data: Sequence[Mapping[str, Any]],
    widths: Mapping[str, int],
    seed_widths: Mapping[str, int],
) -> None:
    """Widths as written in the records."""
    for layer, entry in zip(layers, data, strict=True):
        for end, axis in (("in", layer.in_axis), ("out", layer.out_axis)):
            now, seed = ax.size(axis, widths), ax.size(axis, seed_widths)
            if (entry[end]["width"], entry[end]["seed"]) != (now, seed):
                raise ArchitectureError(
                    f"malformed architecture: layer {layer.path!r} says {end} width "
                    f"{entry[end]['width']} of {entry[end]['seed']}, but its axis measures "
                    f"{now} of {seed}; widths are changed in groups, by their parents"
                )


def is_dtype(name: str) -> bool:
    """Whether it names the type of an array; JAX's random keys have types of their own."""
    try:
        return name.startswith("key<") or np.dtype(name).name == name
    except (TypeError, ValueError, SyntaxError):
        return False
