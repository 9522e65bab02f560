"""An architecture: what every channel group became. Immutable, printable, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from morph.architecture import spec
from morph.architecture.parts import FRESH, Layer, Removed, ResizedGroup
from morph.architecture.records import is_dtype
from morph.architecture.removed import restored, without
from morph.architecture.slicing import Place, one_device, takes_in
from morph.errors import ArchitectureError
from morph.kernels.planned import PlannedKernel
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph
from regularizers.channels.parts import Variable, layer_name
from regularizers.costs.flops import dearest, flop_factors, operation_name
from regularizers.messages import near
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
        (Adafactor's `v_row` and `v_col`). All other leaves, e.g. step counters, pass. Where a
        channel has several clones, what consumes them is divided by their number, so that the
        function stays the same (Net2WiderNet, Chen et al. 2016). Kernels that are factorized
        are decomposed at their ranks; of gradients and optimizer states that makes no sense.

        Raises:
            ArchitectureError: if no leaf belongs to a variable, a leaf has another shape than its
                variable's in the seed, it cannot be told how an optimizer would lay out a leaf at
                the new widths, or a channel is fresh (then use `morph.init`).
        """
        for name, group in self.groups.items():
            if FRESH in group.parents:
                raise ArchitectureError(
                    f"group {name!r} has fresh channels, which have nothing to be taken from; use "
                    "morph.init, or morph.expand(..., warm=True) to clone channels instead."
                )
        paths, leaves, treedef = flat_paths(tree)
        places = [self._place(path) for path in paths]
        gone = {i for i, p in enumerate(places) if p is not None and p.owner in self.gone}
        if not any(places) and any(map(np.ndim, leaves)):
            raise ArchitectureError(
                f"no leaf belongs to the architecture: found {paths[0]!r}, ..., "
                f"expected paths like {next(iter(self.variables))!r}."
            )
        means = self._means(dict(zip(paths, leaves, strict=True)), filter(None, places))
        taken = []
        for path, leaf, place in zip(paths, leaves, places, strict=True):
            if place is None or place.owner in self.gone:
                taken.append(leaf)
            elif path in means:
                taken.append(self._slice(*means[path], place.owner))
            else:
                taken.append(self._slice(leaf, self._axes_of(leaf, path, place), place.owner))
        for i, path in enumerate(paths):
            if path in self.factorized and not isinstance(taken[i], jax.ShapeDtypeStruct):
                taken[i] = self.factorized[path].decompose(taken[i])
        return without(jax.tree.unflatten(treedef, taken), gone)

    @cached_property
    def _short_paths(self) -> dict[str, str]:
        """Every variable by its full path and by its path without collection, if unambiguous."""
        names: dict[str, list[str]] = {}
        for path in self.variables:
            names.setdefault(path.split("/", 1)[-1], []).append(path)
        short = {name: paths[0] for name, paths in names.items() if len(paths) == 1}
        return {**short, **{path: path for path in self.variables}}

    def _place(self, path: str) -> Place | None:
        """The variable that a leaf belongs to; below it there may be one key of a list or a box."""
        parts = path.split("/")
        boxed = parts[-1] == "value" or parts[-1].isdigit()
        for end in (len(parts), len(parts) - 1) if boxed else (len(parts),):
            for i in range(end):
                tail = "/".join(parts[i:end])
                if tail in self._short_paths:
                    key = "/".join(parts[end:])
                    return Place(self._short_paths[tail], "/".join(parts[:i]), tail, key)
        return None

    def _axes_of(self, leaf: Any, path: str, place: Place) -> tuple[int | None, ...]:
        """For each axis of a leaf, the axis of its variable that it runs along; None if none."""
        shape, seed = tuple(np.shape(leaf)), self.variables[place.owner].shape
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

    def _means(
        self, leaves: Mapping[str, Any], places: Iterable[Place]
    ) -> dict[str, tuple[Any, tuple[int | None, ...]]]:
        """Adafactor's means, by path: those that stand there at the new widths, and their axes.

        Of the two longest axes of a variable `optax.scale_by_factored_rms` averages `v_row` over
        the longest and `v_col` over the second, if that is long enough; else it keeps `v`. How
        long is enough the state does not say, only between which lengths the limit is.

        Raises:
            ArchitectureError: if a variable might be factored otherwise at its new shape.
        """
        states = []
        for place in places:
            seed, now = self.variables[place.owner].shape, self.shape(place.owner)
            row, col, full = (
                f"{place.head.removesuffix('v_row')}{name}/{place.tail}"
                for name in ("v_row", "v_col", "v")
            )
            if place.head.split("/")[-1] == "v_row" and {col, full} <= set(leaves) and seed[1:]:
                states.append((row, col, tuple(np.shape(leaves[full])) != seed, seed, now))
        least = min((sorted(s)[-2] for *_, factored, s, _ in states if factored), default=np.inf)
        most = max((sorted(s)[-2] for *_, factored, s, _ in states if not factored), default=0)
        means: dict[str, tuple[Any, tuple[int | None, ...]]] = {}
        for row, col, factored, seed, now in states:
            longest, then = np.argsort(seed)[-2:], np.argsort(now)[-2:]  # as optax sorts them
            length = sorted(now)[-2]
            if (length < least if factored else length > most) or (
                factored and set(longest) != set(then)
            ):
                raise ArchitectureError(
                    f"{row!r} belongs to a variable of shape {list(seed)} that is {list(now)} now: "
                    "whether and along which axes its optimizer would factor it then the state "
                    "does not say; start afresh with tx.init(architecture.take(variables))."
                )
            if factored:
                without = {longest[1]: leaves[row], longest[0]: leaves[col]}
                for path, axis in ((row, then[1]), (col, then[0])):
                    rest = tuple(k for k in range(len(seed)) if k != axis)
                    means[path] = (without[axis], rest)
        return means

    def _slice(self, leaf: Any, axes: Sequence[int | None], owner: str) -> Any:
        """Takes the kept positions; `axes` says which of the owner's each axis of the leaf is."""
        variable, shape = self.variables[owner], self.shape(owner)
        if isinstance(leaf, jax.ShapeDtypeStruct):
            sizes = (n if k is None else shape[k] for n, k in zip(leaf.shape, axes, strict=True))
            return jax.ShapeDtypeStruct(tuple(sizes), leaf.dtype)
        changed = [
            (i, k)
            for i, k in enumerate(axes)
            if k is not None and not self.resized.isdisjoint(ax.groups_of(variable.axes[k]))
        ]
        sharding = one_device(leaf) if changed else None
        if sharding is not None:
            leaf = np.asarray(leaf)  # NumPy compiles nothing, where JAX would for every shape
        for i, k in changed:
            index = self._positions(variable.axes[k])
            leaf = leaf.take(index, axis=i)
            clones = np.bincount(index)[index]
            if takes_in(variable, k) and clones.max(initial=1) > 1:
                ones = [-1 if j == i else 1 for j in range(len(axes))]
                leaf = leaf / clones.reshape(ones).astype(leaf.dtype)
        return leaf if sharding is None else jax.device_put(leaf, sharding)

    def clones(self, path: str) -> dict[int, np.ndarray]:
        """The axes of a variable that consume clones: what each position is a clone of."""
        variable = self.variables[path]
        found = {k: self._positions(axis) for k, axis in enumerate(variable.axes)}
        return {
            k: origin
            for k, origin in found.items()
            if takes_in(variable, k) and np.bincount(origin).max(initial=1) > 1
        }

    def _positions(self, axis: Axis) -> np.ndarray:
        known = self._known_positions
        if axis not in known:
            known[axis] = ax.parent_positions(axis, self._parents, self.seed_widths)
        return known[axis]

    @cached_property
    def _known_positions(self) -> dict[Axis, np.ndarray]:
        return {}

    @cached_property
    def _parents(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(group.parents, int) for name, group in self.groups.items()}

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
                    "factorization": self._factorization(layer.path),
                    "flops": flops[layer.path],
                    "parameters": parameters.get(layer.path, 0),
                    "in_axis": ax.to_json(layer.in_axis),
                    "out_axis": ax.to_json(layer.out_axis),
                    "flop_coefficient": layer.flop_coefficient,
                    "flop_axes": [ax.to_json(axis) for axis in layer.flop_axes],
                }
                for layer in self.layers
            ],
            "removed": [
                {
                    "name": block.name,
                    "kind": block.kind,
                    "variables": list(block.variables),
                    "layers": list(block.layers),
                }
                for block in self.removed
            ],
            "factorized": {path: kernel.to_json() for path, kernel in self.factorized.items()},
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
            removed=tuple(
                Removed(
                    name=block["name"],
                    kind=block["kind"],
                    variables=tuple(block["variables"]),
                    layers=tuple(block["layers"]),
                )
                for block in data["removed"]
            ),
            width_multiplier=data["width_multiplier"],
            report=data["report"],
        )
        try:
            kernels = {
                path: PlannedKernel.from_json(path, kernel)
                for path, kernel in data["factorized"].items()
            }
        except (ValueError, KeyError) as error:
            raise ArchitectureError(f"malformed architecture: {error}") from error
        architecture = replace(architecture, factorized=kernels)
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
        for path in self.gone:
            if path not in self.variables:
                raise ArchitectureError(
                    f"malformed architecture: a removed block had {path!r}"
                    f"{near(path, self.variables)}"
                )
        self._check_factorized()
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
            if not is_dtype(variable.dtype):
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

    def _check_factorized(self) -> None:
        """Factorized kernels are variables of the network, of the shapes that they have now."""
        for path, kernel in self.factorized.items():
            if path not in self.variables or path in self.gone:
                raise ArchitectureError(
                    f"malformed architecture: the network has no {path!r}, which is factorized"
                    f"{near(path, set(self.variables) - self.gone)}"
                )
            if kernel.shape != self.shape(path):
                raise ArchitectureError(
                    f"malformed architecture: {path!r} has shape {list(self.shape(path))}, but its "
                    f"cores make {list(kernel.shape)}"
                )

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
        case (ax.Sum(parts), ax.Sum(others)) | (ax.Product(parts), ax.Product(others)):
            if len(parts) == len(others):
                for part, other in zip(parts, others, strict=True):
                    yield from _alike(other, part)
