"""An architecture: what every channel group became. Immutable, printable, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from morph.architecture import checks, records, spec
from morph.architecture.parts import FRESH, Layer, Removed, ResizedGroup
from morph.architecture.removed import restored, without
from morph.architecture.slicing import Slicing
from morph.errors import ArchitectureError
from morph.kernels.planned import PlannedKernel
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Variable, layer_name
from regularizers.checks import a, check
from regularizers.costs.flops import dearest, flop_factors, operation_name
from regularizers.primitives import axes as ax
from regularizers.primitives.axes import Axis


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What every channel group became, and all that is needed to rebuild the network from it.

    Attributes:
        groups: by name, in the order of the network.
        variables: every variable of the seed, by path.
        layers: its products and convolutions, in order.
        removed: the blocks that left, in order.
        factorized: the kernels that are tensor networks, at the widths that they have now, by path.
        width_multiplier: of the last expansion; None if it was not expanded.
        report: budget, costs before and after, how it was obtained; free-form JSON.
    """

    groups: Mapping[str, ResizedGroup]
    variables: Mapping[str, Variable]
    layers: tuple[Layer, ...] = ()
    removed: tuple[Removed, ...] = ()
    factorized: Mapping[str, PlannedKernel] = field(default_factory=dict)
    width_multiplier: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_seed(cls, graph: ChannelGraph) -> Architecture:
        """The architecture that changes nothing."""
        layers = []
        for operation in dearest(graph):
            coefficient, factors = flop_factors(operation)
            op, kernel, in_axis, out_axis = operation_name(operation)
            layers.append(
                Layer(
                    path=operation.layer,
                    op=op,
                    kernel=kernel,
                    in_axis=in_axis,
                    out_axis=out_axis,
                    flop_coefficient=coefficient,
                    flop_axes=factors,
                )
            )
        return cls(
            groups={
                name: ResizedGroup(
                    seed_width=group.width,
                    parents=tuple(range(group.width)),
                    members=tuple(dict.fromkeys(member.path for member in group.members)),
                )
                for name, group in graph.groups.items()
            },
            variables=dict(graph.variables),
            layers=tuple(layers),
        )

    @cached_property
    def widths(self) -> dict[str, int]:
        """The width of every group now."""
        return {name: group.width for name, group in self.groups.items()}

    @cached_property
    def seed_widths(self) -> dict[str, int]:
        """The width of every group in the seed network."""
        return {name: group.seed_width for name, group in self.groups.items()}

    @property
    def mean_widths(self) -> dict[str, int]:
        """The width of every group that means over it divide by."""
        return {
            name: group.seed_width if group.mean_width is None else group.mean_width
            for name, group in self.groups.items()
        }

    @cached_property
    def resized(self) -> frozenset[str]:
        """The groups that are not the seed's, channel by channel."""
        return frozenset(name for name, group in self.groups.items() if not group.unchanged)

    @cached_property
    def gone(self) -> frozenset[str]:
        """The paths of the variables that left with their blocks."""
        return frozenset(path for block in self.removed for path in block.variables)

    @cached_property
    def gone_layers(self) -> frozenset[str]:
        """The products and convolutions that left with their blocks."""
        return frozenset(layer for block in self.removed for layer in block.layers)

    def shape(self, path: str) -> tuple[int, ...]:
        """The shape of a variable now."""
        return tuple(ax.size(axis, self.widths) for axis in self.variables[path].axes)

    def with_parents(self, parents: Mapping[str, tuple[int, ...]], **changes: Any) -> Architecture:
        """The architecture with other parents for some groups."""
        groups = {
            name: replace(group, parents=tuple(map(int, parents.get(name, group.parents))))
            for name, group in self.groups.items()
        }
        return replace(self, groups=groups, **changes)

    def then(self, other: Architecture) -> Architecture:
        """This architecture followed by `other`, whose seed is this one's network.

        Raises:
            ArchitectureError: if the groups or their widths do not match, or this one is
                factorized, which is the last step.
        """
        check("then", {"other": other}, {"other": ARCHITECTURE})
        if self.factorized:
            raise ArchitectureError(
                f"cannot chain architectures: {next(iter(self.factorized))!r} is factorized in the "
                "first; shrink and expand before tensorizing."
            )
        names = names_in(self, other)
        lost = set() if self.removed else set(self.groups) - set(names.values())
        odd = sorted(lost | (set(other.groups) - set(names)))
        if odd:
            raise ArchitectureError(f"cannot chain architectures: group {odd[0]!r} is in only one")
        for name, own in names.items():
            if other.groups[name].seed_width != self.groups[own].width:
                raise ArchitectureError(
                    f"cannot chain architectures: group {own!r} ends with width "
                    f"{self.groups[own].width} in the first, and starts with "
                    f"{other.groups[name].seed_width} in the second"
                )
        parents = {
            own: tuple(
                FRESH if i == FRESH else self.groups[own].parents[i]
                for i in other.groups[name].parents
            )
            for name, own in names.items()
        }
        chained = self.with_parents(
            parents,
            width_multiplier=other.width_multiplier,
            report={**self.report, **other.report},
            removed=(*self.removed, *other.removed),
            factorized=other.factorized,
        )
        counted = {own: other.groups[name].mean_width for name, own in names.items()}
        return chained.counting({name: n for name, n in counted.items() if n is not None})

    def tensorized(self, kernels: Mapping[str, PlannedKernel]) -> Architecture:
        """The architecture with kernels as tensor networks.

        Args:
            kernels: of a plan for this architecture's network; `TensorizePlan.kernels`.

        Raises:
            ArchitectureError: if a kernel is unknown, or has another shape.
        """
        made = replace(self, factorized=dict(kernels))
        made._check_factorized()
        return made

    def counting(self, mean_widths: Mapping[str, int]) -> Architecture:
        """The architecture whose means over these groups divide by these widths."""
        groups = {
            name: replace(group, mean_width=mean_widths.get(name, group.mean_width))
            for name, group in self.groups.items()
        }
        return replace(self, groups=groups)

    def take(self, tree: Any) -> Any:
        """Slices a tree with the variables' structure: variables, gradients, optimizer states.

        A leaf belongs to a variable if its path ends with that variable's (its collection may be
        missing). It has the seed's shape, or is a statistic of it that an optimizer keeps: one
        number; a history of it, stacked in front; one vector per axis; or means over one axis
        (Adafactor's `v_row` and `v_col`), or what `reg.proximal` keeps of every channel. All other
        leaves, e.g. step counters, pass. Every leaf stays on its device, or divided among its
        devices as it is, and is a copy, so that it can be donated. Where a
        channel has several clones, what consumes them is divided by their number, so that the
        function stays the same (Net2WiderNet, Chen et al. 2016). What is removed counts as zero, as
        in `graph.mask(tree, alive)`, also where it is not: in moving averages of the variables.
        Kernels that are factorized are decomposed at their ranks; of gradients and optimizer states
        that makes no sense.

        Raises:
            ArchitectureError: if no leaf belongs to a variable, a leaf has another shape than its
                variable's in the seed, it cannot be told how an optimizer would lay out a leaf at
                the new widths, devices that share an axis do not divide its new length (then
                `morph.shrink(..., round_to=)`), or a channel is fresh (then use `morph.init`).
        """
        for name, group in self.groups.items():
            if FRESH in group.parents:
                raise ArchitectureError(
                    f"group {name!r} has fresh channels, which have nothing to be taken from; use "
                    "morph.init, or morph.expand(..., warm=True) to clone channels instead."
                )
        return self._slicing.take(tree, self.factorized)

    def clones(self, path: str) -> dict[int, np.ndarray]:
        """The axes of a variable that consume clones: what each position is a clone of."""
        return self._slicing.clones(path)

    @cached_property
    def _slicing(self) -> Slicing:
        return Slicing(
            groups=self.groups,
            variables=self.variables,
            gone=self.gone,
            gone_blocks=frozenset(block.name for block in self.removed),
        )

    def flops(self, widths: Mapping[str, int] | None = None) -> dict[str, float]:
        """FLOPs per layer (2 per multiply-add, at the traced batch size) at `widths` or now."""
        at = dict(widths or self.widths)
        totals: dict[str, float] = {}
        for layer in self.layers:
            here = widths is not None or layer.path not in self.gone_layers
            value = (
                here
                * layer.flop_coefficient
                * float(np.prod([float(ax.size(axis, at)) for axis in layer.flop_axes]))
            )
            totals[layer.path] = totals.get(layer.path, 0.0) + value
        if widths is None:
            for path, kernel in self.factorized.items():
                if "flops" in kernel.costs and layer_name(path) in totals:
                    totals[layer_name(path)] = kernel.costs["flops"][1]
        return totals

    def parameters(self, widths: Mapping[str, int] | None = None) -> dict[str, int]:
        """Trained parameters per layer at `widths` or now."""
        at = dict(widths or self.widths)
        totals: dict[str, int] = {}
        for path, variable in self.variables.items():
            if variable.trained and (widths is not None or path not in self.gone):
                count = int(np.prod([ax.size(axis, at) for axis in variable.axes], dtype=np.int64))
                if widths is None and path in self.factorized:
                    count = self.factorized[path].parameters[1]
                totals[layer_name(path)] = totals.get(layer_name(path), 0) + count
        return totals

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON data, the part for people first."""
        flops, parameters = self.flops(), self.parameters()
        seed, now = self.seed_widths, self.widths
        return {
            "format": spec.FORMAT,
            "version": spec.VERSION,
            "report": dict(self.report),
            "width_multiplier": self.width_multiplier,
            "totals": {
                "flops": sum(flops.values()),
                "seed_flops": sum(self.flops(seed).values()),
                "parameters": sum(parameters.values()),
                "seed_parameters": sum(self.parameters(seed).values()),
            },
            "layers": [
                records.layer_to_json(
                    layer,
                    now,
                    seed,
                    factorization=self._factorization(layer.path),
                    flops=flops[layer.path],
                    parameters=parameters.get(layer.path, 0),
                )
                for layer in self.layers
            ],
            "removed": [records.removed_to_json(block) for block in self.removed],
            "factorized": {path: kernel.to_json() for path, kernel in self.factorized.items()},
            "groups": {name: records.group_to_json(group) for name, group in self.groups.items()},
            "variables": {path: records.variable_to_json(v) for path, v in self.variables.items()},
        }

    def _factorization(self, layer: str) -> dict[str, Any] | None:
        """What the kernels of a layer became, in short; `factorized` has all of it."""
        found = [kernel for path, kernel in self.factorized.items() if layer_name(path) == layer]
        return {"kind": found[0].format.kind, "ranks": found[0].ranks} if found else None

    def save(self, path: str | Path) -> None:
        """Writes the architecture as JSON; the file is complete or not there at all."""
        spec.write(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Reads an architecture and checks it against the schema and against itself.

        Raises:
            ArchitectureError: if it is not JSON, not an architecture, of a newer version, changed
                since it was written, or contradicts itself. The message says where.
            OSError: if the file cannot be read.
        """
        data = spec.read(path)
        try:
            return cls.from_json(data)
        except ArchitectureError as error:
            raise ArchitectureError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, data: Any) -> Architecture:
        """The inverse of `to_json`; raises `ArchitectureError` as `load` does."""
        spec.check(data)
        architecture = cls(
            groups={name: records.group_from_json(g) for name, g in data["groups"].items()},
            variables={
                path: records.variable_from_json(path, v) for path, v in data["variables"].items()
            },
            layers=tuple(map(records.layer_from_json, data["layers"])),
            removed=tuple(map(records.removed_from_json, data["removed"])),
            factorized=records.factorized_from_json(data["factorized"]),
            width_multiplier=data["width_multiplier"],
            report=data["report"],
        )
        architecture._check(data)
        return architecture

    def _check(self, data: Mapping[str, Any]) -> None:
        """What a schema cannot say: parents in range, widths and shapes that agree."""
        checks.check_groups(self.groups, data["groups"])
        checks.check_removed(self.gone, self.variables)
        checks.check_finite(self.width_multiplier, self.layers)
        checks.check_axes(self.variables, self.layers, self.seed_widths)
        checks.check_variables(self.variables, self.seed_widths)
        checks.check_layers(self.layers, data["layers"], self.widths, self.seed_widths)
        self._check_factorized()

    def _check_factorized(self) -> None:
        """Factorized kernels are variables of the network, of the shapes that they have now."""
        shapes = {path: self.shape(path) for path in self.variables if path not in self.gone}
        checks.check_factorized(self.factorized, shapes)

    def abstract(self, tree: Any) -> Any:
        """The abstract value that a tree of the seed's variables has now; fresh channels count."""
        paths, leaves, treedef = flat_paths(tree)
        structs = [
            self.factorized[path].struct(leaf.dtype)
            if path in self.factorized
            else jax.ShapeDtypeStruct(self.shape(path), leaf.dtype)
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        gone = {i for i, path in enumerate(paths) if path in self.gone}
        return without(jax.tree.unflatten(treedef, structs), gone)

    def restored(self, tree: Any) -> Any:
        """A tree of the present variables with those of removed blocks put back, abstract."""
        return restored(
            tree,
            {
                path: jax.ShapeDtypeStruct(v.shape, v.dtype)
                for path, v in self.variables.items()
                if path in self.gone
            },
        )

    def __str__(self) -> str:
        lines = [f"{'group':<32} {'seed':>6} {'width':>6}"]
        for name, group in self.groups.items():
            mark = "" if group.unchanged else "  resized"
            lines.append(f"{name:<32} {group.seed_width:>6} {group.width:>6}{mark}")
        lines += [f"{block.name:<32} removed ({block.kind})" for block in self.removed]
        for path, kernel in self.factorized.items():
            ranks = ", ".join(f"{bond} {rank}" for bond, rank in kernel.ranks.items())
            lines.append(f"{path.removeprefix('params/'):<32} {kernel.format.kind} ({ranks})")
        return "\n".join(lines)


ARCHITECTURE = a(Architecture, "an architecture, as morph.shrink gives one")


def names_in(first: Architecture, second: Architecture) -> dict[str, str]:
    """What the groups of `second` are called in `first`, whose network is the seed of `second`.

    They have the same names but for groups that were called after a layer that left: the axes of
    the variables tell.
    """
    names: dict[str, str] = {}
    for path, variable in second.variables.items():
        if path in first.variables:
            for own, axis in zip(first.variables[path].axes, variable.axes, strict=True):
                names.update(_alike(ax.without_empty(own, first.widths), axis))
    return names


def _alike(own: Axis, axis: Axis) -> Iterator[tuple[str, str]]:
    """Which group of the second axis is which of the first, where both are made alike."""
    match axis, own:
        case str(), str():
            yield axis, own
        case ax.Permuted(child), ax.Permuted(other):
            yield from _alike(other, child)
        case (ax.Sum(parts), ax.Sum(others)) | (ax.Product(parts), ax.Product(others)):
            if len(parts) == len(others):
                for part, other in zip(parts, others, strict=True):
                    yield from _alike(other, part)
