"""Where the arrays of a run lie on a mesh: what is divided, along which axes, and what is whole.

Three kinds of axes: over `data` batches are divided; over `fsdp` batches, and variables with all
that an optimizer keeps of them; over `tensor` variables only. XLA moves what a step needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from morph.architecture.architecture import Architecture
from morph.architecture.optimizer_layouts import BY_BLOCK, BY_GROUP, find_place
from morph.errors import MeshError
from morph.training.mesh import batch_axes, data_mesh, placed, replicated
from morph.training.step import TrainState
from regularizers.channels.calls import flat_paths, joined_path
from regularizers.channels.graph import ChannelGraph
from regularizers.messages import near
from regularizers.objective.sums import SharedSums, Sums
from regularizers.patterns import matching, parse, spells
from regularizers.primitives.axes import groups_of

FSDP, AXES = "fsdp", ("data", "fsdp", "tensor")
SMALL = 1024  # numbers: smaller arrays lie whole, unless a rule says otherwise

# For each of the last axes of an array, the axes of the mesh that it is divided over.
Divided: TypeAlias = tuple[tuple[str, ...], ...]
Tree = TypeVar("Tree")


def mesh_named(text: str) -> Mesh:
    """A mesh of all devices of all processes, by the sizes of its axes.

    Args:
        text: `data=4,fsdp=2`; empty for all devices along `data`.

    Raises:
        MeshError: if it is none, an axis is not known, or the sizes do not multiply to the number
            of devices.
    """
    if not text:
        return data_mesh()
    none = MeshError(f"mesh={text!r} is not a mesh; write e.g. data=4,fsdp=2, each axis once")
    try:
        sizes = parse(text, "mesh", int)
    except ValueError as error:
        raise none from error
    if not sizes:
        raise none
    for name, size in sizes.items():
        if name not in AXES:
            raise MeshError(
                f"mesh={text!r}: there is no axis {name!r}{near(name, AXES)}; batches are divided "
                "over data, variables and batches over fsdp, variables over tensor"
            )
        if size < 1:
            raise MeshError(f"mesh={text!r}: {name} must be at least 1")
    count, there = math.prod(sizes.values()), jax.device_count()
    if count != there:
        raise MeshError(
            f"mesh={text!r} is of {' x '.join(map(str, sizes.values()))} = {count} devices, but "
            f"there are {there}; choose sizes that multiply to {there}"
        )
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds)


def rules_named(text: str) -> dict[str, Divided]:
    """What is divided over what, by pattern; the first that matches wins.

    Args:
        text: `PATTERN=AXES` separated by commas, where axes are the mesh's for each of the last
            axes of an array, separated by colons: `-` for none, several joined by `+`:
            `*/kernel=fsdp:tensor,head=-`.

    Raises:
        ValueError: if it is none.
    """

    def divided(said: str) -> Divided:
        return tuple(
            () if part.strip() == "-" else tuple(name.strip() for name in part.split("+"))
            for part in said.split(":")
        )

    return parse(text, "shard", divided)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where arrays lie; best made by `of`, which checks it.

    What no rule names lies as the model says (`nn.with_partitioning`); else an array of some size
    is divided over `fsdp`, along its longest axis that is even. An axis whose length the devices do
    not divide lies whole: so what is narrow may shrink to any width.

    Attributes:
        mesh: of all devices.
        rules: by pattern of the path of a variable, see `rules_named`.
        told: what the model says, by path.
    """

    mesh: Mesh
    rules: Mapping[str, Divided] = field(default_factory=dict)
    told: Mapping[str, Divided] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, mesh: Mesh, rules: Mapping[str, Divided], variables: Any) -> Layout:
        """The layout of a network.

        Args:
            mesh: of all devices.
            rules: by pattern.
            variables: of the seed network, arrays or abstract ones, with what the model says.

        Raises:
            MeshError: if a rule, or the model, names no axis of the mesh, or divides an array that
                is not even; or if nothing is divided over `tensor`.
            ValueError: if a rule matches nothing.
        """
        layout = cls(mesh=mesh, rules=rules, told=told_by(variables, mesh))
        paths, leaves, _ = flat_paths(variables)
        for pattern in rules:
            matching(pattern, paths, "shard")
        used = {
            name
            for path, leaf in zip(paths, leaves, strict=True)
            for names in layout._checked(path, np.shape(leaf))
            for name in names
        }
        idle = [name for name in mesh.axis_names if name not in (*batch_axes(mesh), *used)]
        if any(mesh.shape[name] > 1 for name in idle):
            raise MeshError(
                f"no variable is divided over {idle[0]}={mesh.shape[idle[0]]}; name some, e.g. "
                f"--shard='*/kernel=-:{idle[0]}', or by nn.with_partitioning in the model"
            )
        return layout

    def spec(self, path: str, shape: tuple[int, ...]) -> PartitionSpec:
        """How a variable is divided.

        Args:
            path: of it, as traced: `params/Dense_0/kernel`.
            shape: of it now, which may be narrower than the seed's.
        """
        said = self._said(path, len(shape))
        if said is None:
            return self._longest(shape)
        even = (
            names if n and n % self._devices(names) == 0 else ()
            for names, n in zip(said, shape, strict=True)
        )
        return PartitionSpec(*(names or None for names in even))

    def variables(self, tree: Tree) -> Tree:
        """Variables, where they belong."""
        return placed(tree, self._cached(tree, self._of_variables))

    def state(self, state: TrainState) -> TrainState:
        """All of a state of training, where it belongs."""
        return placed(state, self._cached(state, self._of_state))

    def constrained(self, state: TrainState) -> TrainState:
        """Likewise, within compiled code."""
        if not self.divides:
            return state
        return jax.lax.with_sharding_constraint(state, self._of_state(state))

    def whole(self, tree: Tree) -> Tree:
        """The arrays of a tree, equal in all processes, whole on every device."""
        return replicated(tree, self.mesh)

    def batch(self, batch: Tree) -> Tree:
        """A batch [n, ...], equal in all processes: divided if it can be, else whole."""
        count = {np.shape(leaf)[0] for leaf in jax.tree.leaves(batch) if np.ndim(leaf)}
        axes = batch_axes(self.mesh)
        if len(count) != 1 or count.pop() % self._devices(axes):
            return self.whole(batch)
        return placed(batch, jax.tree.map(lambda _: self._at(axes), batch))

    def places(self, tree: Any) -> Any:
        """The shardings of variables, which may be abstract; None if none is divided."""
        return self._of_variables(tree) if self.divides else None

    def abstract(self, state: TrainState) -> TrainState:
        """A state that is nowhere, with the shardings that it would have."""

        def struct(leaf: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

        return jax.tree.map(struct, state, self._of_state(state))

    def round_to(self, graph: ChannelGraph) -> int:
        """What widths must be multiples of, so that what carries channels stays even."""
        counts = [
            self._devices(_names(entry))
            for path, variable in graph.variables.items()
            for k, entry in enumerate(self.spec(path, tuple(variable.shape)))
            if any(groups_of(variable.axes[k]))
        ]
        return math.lcm(1, *counts)

    @property
    def sums(self) -> Sums:
        """How a regularizer sums over variables."""
        return SharedSums(self.mesh, self.spec) if self.divides else Sums()

    @cached_property
    def divides(self) -> bool:
        """Whether variables may be divided at all."""
        named = any(map(any, self.told.values())) or bool(self.rules)
        return self.mesh.size > 1 and (named or self.mesh.shape.get(FSDP, 1) > 1)

    def _said(self, path: str, ndim: int) -> Divided | None:
        """What a rule or the model says of each axis; None for nothing."""
        said = next((own for pattern, own in self.rules.items() if spells(pattern, path)), None)
        said = self.told.get(path) if said is None else said
        if said is None:
            return None
        return (*((),) * (ndim - len(said)), *said[max(0, len(said) - ndim) :])

    def _checked(self, path: str, shape: tuple[int, ...]) -> Divided:
        """What a variable of the seed is divided over.

        Raises:
            MeshError: if there is no such axis, or it is not even.
        """
        said = self._said(path, len(shape))
        if said is None:
            return tuple(map(_names, self._longest(shape)))
        every = [name for names in said for name in names]
        for name in every:
            if name not in self.mesh.axis_names:
                raise MeshError(
                    f"{path!r} is to be divided over {name!r}, which is no axis of the mesh"
                    f"{near(name, self.mesh.axis_names)}"
                )
            if every.count(name) > 1:
                raise MeshError(f"{path!r} is to be divided twice over {name!r}; name it once")
        for k, (names, n) in enumerate(zip(said, shape, strict=True)):
            if n % self._devices(names):
                raise MeshError(
                    f"{path!r} is {list(shape)}: its axis {k} cannot be divided evenly over "
                    f"{' x '.join(names)} = {self._devices(names)} devices; divide another axis, "
                    "or make it a multiple"
                )
        return said

    def _longest(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Divided over `fsdp` along the longest axis that is even."""
        size = self.mesh.shape.get(FSDP, 1)
        even = [k for k, n in enumerate(shape) if n and n % size == 0]
        if size == 1 or not even or math.prod(shape) < SMALL:
            return PartitionSpec()
        k = max(even, key=lambda k: shape[k])
        return PartitionSpec(*(None,) * k, FSDP)

    def _devices(self, names: tuple[str, ...]) -> int:
        return math.prod(self.mesh.shape[name] for name in names)

    def _at(self, *entries: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*entries))

    def _of_variables(self, tree: Any) -> Any:
        paths, leaves, treedef = flat_paths(tree)
        places = [
            NamedSharding(self.mesh, self.spec(path, np.shape(leaf)))
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, places)

    def _of_state(self, state: TrainState) -> TrainState:
        own = self._of_variables(state.variables)
        collections = {name: own[name] for name in state.collections}
        return state.replace(
            step=self._at(),
            params=own["params"],
            collections=collections,
            opt_state=self._of_optimizer(state.opt_state, state.params),
            ema=self._of_variables(state.ema),
            teacher=self._of_variables(state.teacher),
        )

    def _of_optimizer(self, opt_state: Any, params: Any) -> Any:
        """What an optimizer keeps of a parameter, in its shape, lies as that does."""
        paths, leaves, _ = flat_paths({"params": params})
        shapes = {path: np.shape(leaf) for path, leaf in zip(paths, leaves, strict=True)}
        names = {name: path for path in paths for name in (path, path.removeprefix("params/"))}
        kept, found, treedef = flat_paths(opt_state)
        places = []
        for path, leaf in zip(kept, found, strict=True):
            ours = not {*BY_GROUP, BY_BLOCK}.isdisjoint(path.split("/"))
            place = None if ours else find_place(path, names)
            is_like = place is not None and np.shape(leaf) == shapes[place.owner]
            spec = self.spec(place.owner, shapes[place.owner]) if place and is_like else None
            places.append(NamedSharding(self.mesh, spec or PartitionSpec()))
        return jax.tree.unflatten(treedef, places)

    def _cached(self, tree: Any, made: Callable[[Any], Any]) -> Any:
        """What is made of a tree's paths and shapes, once: they are the same at every chunk."""
        leaves, treedef = jax.tree.flatten(tree)
        key = (made.__name__, treedef, tuple(map(np.shape, leaves)))
        if key not in self._known:
            self._known[key] = made(tree)
        return self._known[key]


def told_by(variables: Any, mesh: Mesh) -> dict[str, Divided]:
    """How a model says by `nn.with_partitioning` that its variables are divided, by path.

    What it says of axes that a mesh has not is for another one.
    """

    def is_box(node: Any) -> bool:
        return isinstance(node, nn.meta.AxisMetadata)

    found = {}
    for path, box in jax.tree.leaves_with_path(variables, is_leaf=is_box):
        if isinstance(box, nn.Partitioned):
            spec = box.get_partition_spec()
            if isinstance(box, nn.LogicallyPartitioned):
                spec = nn.logical_to_mesh_axes(tuple(spec)) or spec
            said = tuple(map(_names, spec))
            here = tuple(tuple(n for n in names if n in mesh.axis_names) for names in said)
            if any(here) or not any(said):
                found[joined_path(path)] = here
    return found


def _names(entry: Any) -> tuple[str, ...]:
    """The axes of the mesh in an entry of a partition spec."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def even_after(architecture: Architecture, tree: Tree) -> Tree:
    """The arrays of a tree, whole along axes that would not be even any more once it is taken.

    Args:
        architecture: what `take` is to be called of.
        tree: that it is to take.
    """

    def abstract(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype)

    after = flat_paths(architecture.take(jax.tree.map(abstract, tree)))
    later = dict(zip(after[0], map(np.shape, after[1]), strict=True))
    paths, leaves, treedef = flat_paths(tree)
    moved = []
    for path, leaf in zip(paths, leaves, strict=True):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and path in later:
            mesh = sharding.mesh
            counts = [math.prod(mesh.shape[a] for a in _names(entry)) for entry in sharding.spec]
            kept = [
                None if n % count else entry
                for entry, count, n in zip(sharding.spec, counts, later[path], strict=False)
            ]
            leaf = jax.device_put(leaf, NamedSharding(mesh, PartitionSpec(*kept)))
        moved.append(leaf)
    return jax.tree.unflatten(treedef, moved)
