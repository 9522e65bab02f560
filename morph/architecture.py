"""An architecture: what every channel group became. Immutable, printable, JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from morph import spec
from morph.spec import ArchitectureError
from regularizers.channels import axes as ax
from regularizers.channels.axes import Axis
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph, Variable, layer_name, near
from regularizers.costs.flops import dearest, flop_factors, operation_name

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
class Architecture:
    """What every channel group became, and all that is needed to rebuild the network from it.

    Attributes:
        groups: by name, in the order of the network.
        variables: every variable of the seed, by path.
        layers: its products and convolutions, in order.
        width_multiplier: of the last expansion; None if it was not expanded.
        report: budget, costs before and after, how it was obtained; free-form JSON.
    """

    groups: Mapping[str, ResizedGroup]
    variables: Mapping[str, Variable]
    layers: tuple[Layer, ...] = ()
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

    @property
    def widths(self) -> dict[str, int]:
        """The width of every group now."""
        return {name: group.width for name, group in self.groups.items()}

    @property
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

    @property
    def resized(self) -> frozenset[str]:
        """The groups that are not the seed's, channel by channel."""
        return frozenset(name for name, group in self.groups.items() if not group.unchanged)

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
            ArchitectureError: if the groups or their widths do not match.
        """
        if set(other.groups) != set(self.groups):
            odd = sorted(set(other.groups) ^ set(self.groups))
            raise ArchitectureError(f"cannot chain architectures: group {odd[0]!r} is in only one")
        for name, group in self.groups.items():
            if other.groups[name].seed_width != group.width:
                raise ArchitectureError(
                    f"cannot chain architectures: group {name!r} ends with width {group.width} in "
                    f"the first, and starts with {other.groups[name].seed_width} in the second"
                )
        parents = {
            name: tuple(
                FRESH if i == FRESH else group.parents[i] for i in other.groups[name].parents
            )
            for name, group in self.groups.items()
        }
        merged = {**self.report, **other.report}
        chained = self.with_parents(parents, width_multiplier=other.width_multiplier, report=merged)
        counted = {name: group.mean_width for name, group in other.groups.items()}
        return chained.counting({name: n for name, n in counted.items() if n is not None})

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
        missing) and it has the seed's shape. All other leaves, e.g. step counters, pass. Where a
        channel has several clones, what consumes them is divided by their number, so that the
        function stays the same (Net2WiderNet, Chen et al. 2016).

        Raises:
            ArchitectureError: if no leaf belongs to a variable, a leaf has another shape than its
                variable's in the seed, or a channel is fresh (then use `morph.init`).
        """
        for name, group in self.groups.items():
            if FRESH in group.parents:
                raise ArchitectureError(
                    f"group {name!r} has fresh channels, which have nothing to be taken from; use "
                    "morph.init, or morph.expand(..., warm=True) to clone channels instead."
                )
        paths, leaves, treedef = flat_paths(tree)
        owners = [self._owner(path) for path in paths]
        if not any(owners) and any(map(np.ndim, leaves)):
            raise ArchitectureError(
                f"no leaf belongs to the architecture: found {paths[0]!r}, ..., "
                f"expected paths like {next(iter(self.variables))!r}."
            )
        taken = []
        for path, leaf, owner in zip(paths, leaves, owners, strict=True):
            taken.append(leaf if owner is None else self._slice(leaf, path, owner))
        return jax.tree.unflatten(treedef, taken)

    @cached_property
    def _short_paths(self) -> dict[str, str]:
        """Every variable by its full path and by its path without collection, if unambiguous."""
        names: dict[str, list[str]] = {}
        for path in self.variables:
            names.setdefault(path.split("/", 1)[-1], []).append(path)
        short = {name: paths[0] for name, paths in names.items() if len(paths) == 1}
        return {**short, **{path: path for path in self.variables}}

    def _owner(self, path: str) -> str | None:
        parts = path.split("/")
        tails = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((self._short_paths[t] for t in tails if t in self._short_paths), None)

    def _slice(self, leaf: Any, path: str, owner: str) -> Any:
        variable = self.variables[owner]
        shape = tuple(np.shape(leaf))
        if shape != variable.shape:
            if path != owner and not shape:
                return leaf  # a scalar that an optimizer keeps per variable
            raise ArchitectureError(
                f"{path!r} has shape {list(shape)}; in the seed network {owner!r} has "
                f"{list(variable.shape)}. Pass the seed's variables."
            )
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(self.shape(owner), leaf.dtype)
        for k, axis in enumerate(variable.axes):
            if not self.resized.intersection(ax.groups_of(axis)):
                continue
            index = self._positions(axis)
            leaf = jnp.take(leaf, index, axis=k)
            clones = np.bincount(index)[index]
            if k in variable.consumes and k not in variable.produces and clones.max(initial=1) > 1:
                ones = [-1 if i == k else 1 for i in range(len(shape))]
                leaf = leaf / clones.reshape(ones).astype(leaf.dtype)
        return leaf

    def _positions(self, axis: Axis) -> np.ndarray:
        parents = {name: np.asarray(group.parents, int) for name, group in self.groups.items()}
        return ax.parent_positions(axis, parents, self.seed_widths)

    def flops(self, widths: Mapping[str, int] | None = None) -> dict[str, float]:
        """FLOPs per layer (2 per multiply-add, at the traced batch size) at `widths` or now."""
        at = dict(widths or self.widths)
        totals: dict[str, float] = {}
        for layer in self.layers:
            value = layer.flop_coefficient * float(
                np.prod([float(ax.size(axis, at)) for axis in layer.flop_axes])
            )
            totals[layer.path] = totals.get(layer.path, 0.0) + value
        return totals

    def parameters(self, widths: Mapping[str, int] | None = None) -> dict[str, int]:
        """Trained parameters per layer at `widths` or now."""
        at = dict(widths or self.widths)
        totals: dict[str, int] = {}
        for path, variable in self.variables.items():
            if variable.trained:
                count = int(np.prod([ax.size(axis, at) for axis in variable.axes], dtype=np.int64))
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
                {
                    "path": layer.path,
                    "op": layer.op,
                    "kernel": list(layer.kernel),
                    "in": {
                        "width": ax.size(layer.in_axis, now),
                        "seed": ax.size(layer.in_axis, seed),
                    },
                    "out": {
                        "width": ax.size(layer.out_axis, now),
                        "seed": ax.size(layer.out_axis, seed),
                    },
                    "factorization": None,
                    "flops": flops[layer.path],
                    "parameters": parameters.get(layer.path, 0),
                    "in_axis": ax.to_json(layer.in_axis),
                    "out_axis": ax.to_json(layer.out_axis),
                    "flop_coefficient": layer.flop_coefficient,
                    "flop_axes": [ax.to_json(axis) for axis in layer.flop_axes],
                }
                for layer in self.layers
            ],
            "removed": [],
            "groups": {
                name: {
                    "seed_width": group.seed_width,
                    "width": group.width,
                    "parents": list(group.parents),
                    "members": list(group.members),
                    **({} if group.mean_width is None else {"mean_width": group.mean_width}),
                }
                for name, group in self.groups.items()
            },
            "variables": {
                path: {
                    "shape": list(variable.shape),
                    "dtype": variable.dtype,
                    "axes": [ax.to_json(axis) for axis in variable.axes],
                    "produces": sorted(variable.produces),
                    "consumes": sorted(variable.consumes),
                    "kind": variable.kind,
                    "trained": variable.trained,
                }
                for path, variable in self.variables.items()
            },
        }

    def save(self, path: str | Path) -> None:
        """Writes the architecture as JSON; the file is complete or not there at all."""
        spec.write(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Architecture:
        """Reads an architecture and checks it against the schema and against itself.

        Raises:
            ArchitectureError: if it is not JSON, not an architecture, of a newer version, or
                contradicts itself. The message says where.
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
            groups={
                name: ResizedGroup(
                    seed_width=int(group["seed_width"]),  # JSON's 5.0 is an integer, too
                    parents=tuple(map(int, group["parents"])),
                    members=tuple(group["members"]),
                    mean_width=None if "mean_width" not in group else int(group["mean_width"]),
                )
                for name, group in data["groups"].items()
            },
            variables={
                path: Variable(
                    path=path,
                    shape=tuple(map(int, variable["shape"])),
                    dtype=variable["dtype"],
                    axes=tuple(map(ax.from_json, variable["axes"])),
                    produces=frozenset(map(int, variable["produces"])),
                    consumes=frozenset(map(int, variable["consumes"])),
                    kind=variable["kind"],
                    trained=variable["trained"],
                )
                for path, variable in data["variables"].items()
            },
            layers=tuple(
                Layer(
                    path=layer["path"],
                    op=layer["op"],
                    kernel=tuple(map(int, layer["kernel"])),
                    in_axis=ax.from_json(layer["in_axis"]),
                    out_axis=ax.from_json(layer["out_axis"]),
                    flop_coefficient=layer["flop_coefficient"],
                    flop_axes=tuple(map(ax.from_json, layer["flop_axes"])),
                )
                for layer in data["layers"]
            ),
            width_multiplier=data["width_multiplier"],
            report=data["report"],
        )
        architecture._check(data)
        return architecture

    def _check(self, data: Mapping[str, Any]) -> None:
        """What a schema cannot say: parents in range, widths and shapes that agree."""
        for name, group in self.groups.items():
            if data["groups"][name]["width"] != group.width:
                raise ArchitectureError(
                    f"malformed architecture: group {name!r} says width "
                    f"{data['groups'][name]['width']}, but lists {group.width} parents"
                )
            if any(not FRESH <= parent < group.seed_width for parent in group.parents):
                raise ArchitectureError(
                    f"malformed architecture: group {name!r} has a parent outside 0.."
                    f"{group.seed_width - 1}"
                )
        numbers = [self.width_multiplier or 0.0, *(layer.flop_coefficient for layer in self.layers)]
        if not np.all(np.isfinite(numbers)):
            raise ArchitectureError("malformed architecture: a number in it is not finite")
        known = self.seed_widths
        for where, axis in [
            *((path, axis) for path, v in self.variables.items() for axis in v.axes),
            *(
                (layer.path, axis)
                for layer in self.layers
                for axis in (layer.in_axis, layer.out_axis, *layer.flop_axes)
            ),
        ]:
            for name in ax.groups_of(axis):
                if name not in known:
                    raise ArchitectureError(
                        f"malformed architecture: {where!r} names group {name!r}{near(name, known)}"
                    )
        for path, variable in self.variables.items():
            sizes = tuple(ax.size(axis, known) for axis in variable.axes)
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
            if not _is_dtype(variable.dtype):
                raise ArchitectureError(
                    f"malformed architecture: {path!r} has dtype {variable.dtype!r}, which "
                    "does not exist"
                )
        for layer, entry in zip(self.layers, data["layers"], strict=True):
            for end, axis in (("in", layer.in_axis), ("out", layer.out_axis)):
                now, seed = ax.size(axis, self.widths), ax.size(axis, known)
                if (entry[end]["width"], entry[end]["seed"]) != (now, seed):
                    raise ArchitectureError(
                        f"malformed architecture: layer {layer.path!r} says {end} width "
                        f"{entry[end]['width']} of {entry[end]['seed']}, but its axis measures "
                        f"{now} of {seed}; widths are changed in groups, by their parents"
                    )

    def abstract(self, tree: Any) -> Any:
        """The abstract value that a tree of the seed's variables has now; fresh channels count."""
        paths, leaves, treedef = flat_paths(tree)
        shapes = [self.shape(path) for path in paths]
        return jax.tree.unflatten(
            treedef,
            [jax.ShapeDtypeStruct(n, leaf.dtype) for n, leaf in zip(shapes, leaves, strict=True)],
        )

    def __str__(self) -> str:
        lines = [f"{'group':<32} {'seed':>6} {'width':>6}"]
        for name, group in self.groups.items():
            mark = "" if group.unchanged else "  resized"
            lines.append(f"{name:<32} {group.seed_width:>6} {group.width:>6}{mark}")
        return "\n".join(lines)


def _is_dtype(name: str) -> bool:
    """Whether it names the type of an array; JAX's random keys have types of their own."""
    try:
        return name.startswith("key<") or np.dtype(name).name == name
    except (TypeError, ValueError, SyntaxError):
        return False
