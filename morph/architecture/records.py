"""The parts of an architecture as JSON, and back: one pair of functions for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morph.architecture.parts import Layer, Removed, ResizedGroup
from morph.errors import ArchitectureError
from morph.kernels.planned import PlannedKernel
from regularizers.channels.parts import Variable
from regularizers.primitives import axes as ax


def group_to_json(group: ResizedGroup) -> dict[str, Any]:
    """A group; its width is there for people."""
    return {
        "seed_width": group.seed_width,
        "width": group.width,
        "parents": list(group.parents),
        "members": list(group.members),
        **({} if group.mean_width is None else {"mean_width": group.mean_width}),
    }


def group_from_json(data: Mapping[str, Any]) -> ResizedGroup:
    """The inverse of `group_to_json`."""
    return ResizedGroup(
        seed_width=int(data["seed_width"]),  # JSON's 5.0 is an integer, too
        parents=tuple(map(int, data["parents"])),
        members=tuple(data["members"]),
        mean_width=None if "mean_width" not in data else int(data["mean_width"]),
    )


def variable_to_json(variable: Variable) -> dict[str, Any]:
    """A variable; its path is the key that it stands under."""
    return {
        "shape": list(variable.shape),
        "dtype": variable.dtype,
        "axes": [ax.to_json(axis) for axis in variable.axes],
        "produces": sorted(variable.produces),
        "consumes": sorted(variable.consumes),
        "kind": variable.kind,
        "trained": variable.trained,
    }


def variable_from_json(path: str, data: Mapping[str, Any]) -> Variable:
    """The inverse of `variable_to_json`."""
    return Variable(
        path=path,
        shape=tuple(map(int, data["shape"])),
        dtype=data["dtype"],
        axes=tuple(map(ax.from_json, data["axes"])),
        produces=frozenset(map(int, data["produces"])),
        consumes=frozenset(map(int, data["consumes"])),
        kind=data["kind"],
        trained=data["trained"],
    )


def layer_to_json(
    layer: Layer, now: Mapping[str, int], seed: Mapping[str, int], **shown: Any
) -> dict[str, Any]:
    """A layer, with its widths now and in the seed, and what else is `shown` to people."""
    return {
        "path": layer.path,
        "op": layer.op,
        "kernel": list(layer.kernel),
        "in": {"width": ax.size(layer.in_axis, now), "seed": ax.size(layer.in_axis, seed)},
        "out": {"width": ax.size(layer.out_axis, now), "seed": ax.size(layer.out_axis, seed)},
        **shown,
        "in_axis": ax.to_json(layer.in_axis),
        "out_axis": ax.to_json(layer.out_axis),
        "flop_coefficient": layer.flop_coefficient,
        "flop_axes": [ax.to_json(axis) for axis in layer.flop_axes],
    }


def layer_from_json(data: Mapping[str, Any]) -> Layer:
    """The inverse of `layer_to_json`."""
    return Layer(
        path=data["path"],
        op=data["op"],
        kernel=tuple(map(int, data["kernel"])),
        in_axis=ax.from_json(data["in_axis"]),
        out_axis=ax.from_json(data["out_axis"]),
        flop_coefficient=data["flop_coefficient"],
        flop_axes=tuple(map(ax.from_json, data["flop_axes"])),
    )


def removed_to_json(block: Removed) -> dict[str, Any]:
    """A block that left."""
    return {
        "name": block.name,
        "kind": block.kind,
        "variables": list(block.variables),
        "layers": list(block.layers),
    }


def removed_from_json(data: Mapping[str, Any]) -> Removed:
    """The inverse of `removed_to_json`."""
    return Removed(
        name=data["name"],
        kind=data["kind"],
        variables=tuple(data["variables"]),
        layers=tuple(data["layers"]),
    )


def factorized_from_json(data: Mapping[str, Any]) -> dict[str, PlannedKernel]:
    """The factorized kernels, by path.

    Raises:
        ArchitectureError: if one is malformed.
    """
    try:
        return {path: PlannedKernel.from_json(path, kernel) for path, kernel in data.items()}
    except (ValueError, KeyError) as error:
        raise ArchitectureError(f"malformed architecture: {error}") from error
