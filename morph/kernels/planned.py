"""How one kernel is factorized: what a plan lists, and the architecture's JSON records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from morph import kernels
from morph.kernels.factorized import Factorized, Format
from morph.kernels.initial import random_factorized
from regularizers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PlannedKernel:
    """How one kernel is factorized.

    Attributes:
        path: of the variable.
        roles: one letter for each of its axes; see `morph.kernels.formats`. `b` is a stack.
        format: which cores make it.
        sizes: the length of every label, the ranks among them.
        error: relative Frobenius error; of a stack, of all its kernels together.
        costs: what its layer costs, (dense, factorized), by the name of the cost.
        notes: what is not as asked.
    """

    path: str
    roles: str
    format: Format
    sizes: Mapping[str, int]
    error: float
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the dense kernel."""
        return self.format.shape(self.sizes)

    @property
    def ranks(self) -> dict[str, int]:
        """The bond dimensions."""
        return {bond: self.sizes[bond] for bond in self.format.bonds}

    @property
    def factors(self) -> list[list[int]]:
        """The lengths that make each axis."""
        return [[self.sizes[label] for label in axis] for axis in self.format.axes]

    @property
    def parameters(self) -> tuple[int, int]:
        """How many numbers it holds, (dense, factorized)."""
        return math.prod(self.shape), self.format.parameters(self.sizes)

    def struct(self, dtype: Any) -> Factorized:
        """The factorized kernel, abstract."""
        shapes = self.format.core_shapes(self.sizes)
        return Factorized(
            cores=tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes), format=self.format
        )

    def decompose(self, kernel: Any) -> Factorized:
        """Another kernel of its shape, at these ranks.

        Raises:
            ValueError: if it has another shape, or is not finite.
        """
        self._check_shape(kernel)
        tt = self.format.kind == "tt"
        factors = [own for own, role in zip(self.factors, self.roles, strict=True) if role != "b"]
        return kernels.factorize_stack(
            kernel,
            self.roles,
            self.format.kind,
            path=self.path,
            ranks=self.ranks,
            **({"factors": factors} if tt else {}),
        ).value

    def _check_shape(self, kernel: Any) -> None:
        if kernel.shape != self.shape:
            raise InputError(
                f"{self.path} has shape {list(kernel.shape)}, planned for {list(self.shape)}"
            )

    def draw(self, kernel: Any, key: Any) -> Factorized:
        """Fresh cores whose kernel has the variance of another that was drawn.

        Args:
            kernel: as the model's own initializer draws it; of its shape.
            key: of JAX.

        Raises:
            ValueError: if it has another shape.
        """
        self._check_shape(kernel)
        unit = random_factorized(key, self.format, self.sizes, 1.0, kernel.dtype)
        scale = jnp.std(kernel) ** (1.0 / len(unit.cores))  # of every core; a tracer under jit
        return jax.tree.map(lambda core: core * scale, unit)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON data, the part for people first."""
        dense, now = self.parameters
        return {
            "kind": self.format.kind,
            "shape": list(self.shape),
            "factors": self.factors,
            "ranks": self.ranks,
            "error": self.error,
            "parameters": now,
            "seed_parameters": dense,
            "costs": {
                name: {"seed": before, "now": after} for name, (before, after) in self.costs.items()
            },
            "notes": list(self.notes),
            "roles": self.roles,
            "cores": {
                name: list(labels)
                for name, labels in zip(self.format.names, self.format.labels, strict=True)
            },
            "axes": [list(axis) for axis in self.format.axes],
            "sizes": dict(self.sizes),
        }

    @classmethod
    def from_json(cls, path: str, data: Mapping[str, Any]) -> PlannedKernel:
        """The inverse of `to_json`.

        Raises:
            ValueError: if the data contradict themselves.
        """
        format = Format(
            kind=data["kind"],
            names=tuple(data["cores"]),
            labels=tuple(map(tuple, data["cores"].values())),
            axes=tuple(map(tuple, data["axes"])),
        )
        sizes = {label: int(n) for label, n in data["sizes"].items()}
        used = {label for own in (*format.labels, *format.axes) for label in own}
        if used != set(sizes) or any(n < 1 for n in sizes.values()):
            raise InputError(f"{path!r} does not give every label a size of at least 1")
        cored = {label for own in format.labels for label in own}
        open_ = [label for axis in format.axes for label in axis]
        if not cored.issuperset(open_) or len(set(open_)) < len(open_):
            raise InputError(f"{path!r} has axes of no core's label, or two of one")
        if len(data["roles"]) != len(format.axes):
            raise InputError(f"{path!r} has {len(format.axes)} axes, but roles {data['roles']!r}")
        found = cls(
            path=path,
            roles=data["roles"],
            format=format,
            sizes=sizes,
            error=_finite(path, data["error"]),
            costs={
                name: (_finite(path, c["seed"]), _finite(path, c["now"]))
                for name, c in data["costs"].items()
            },
            notes=tuple(data["notes"]),
        )
        said = (tuple(data["shape"]), dict(data["ranks"]), data["parameters"])
        if said != (found.shape, found.ranks, found.parameters[1]):
            raise InputError(
                f"{path!r} says shape, ranks and parameters {said}, but its sizes make "
                f"{(found.shape, found.ranks, found.parameters[1])}"
            )
        return found


def _finite(path: str, number: Any) -> float:
    if not math.isfinite(number):
        raise InputError(f"{path!r} has a number that is not finite")
    return float(number)
