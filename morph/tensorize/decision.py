"""What was decided about the kernels of a network: which are factorized, at which ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from morph.errors import LossyPlanWarning
from morph.kernels.decompose import Factorization
from morph.kernels.factorized import Factorized
from morph.kernels.planned import PlannedKernel
from morph.tensorize.fit import Fitted
from regularizers.channels.calls import flat_paths
from regularizers.errors import InputError
from regularizers.messages import near

LARGE = 0.5  # a relative error that the plan warns of
NAMED = 3  # kernels in that warning


@dataclass(frozen=True, kw_only=True, eq=False)
class Made:
    """What a plan found for a kernel.

    Attributes:
        kernel: as it was.
        value: factorized.
        biases: by path, variables that were changed with it: as they were, and as they are.
    """

    kernel: Any
    value: Factorized
    biases: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def is_of(self, leaves: Mapping[str, Any], path: str) -> bool:
        """Whether the variables are those that it was found for."""
        pairs = [(self.kernel, leaves[path])]
        pairs += [(was, leaves.get(bias)) for bias, (was, _) in self.biases.items()]
        return all(was is leaf or np.array_equal(was, leaf) for was, leaf in pairs)


@dataclass(frozen=True, kw_only=True)
class TensorizePlan:
    """Which kernels are factorized; printable, and JSON through `Architecture`.

    Attributes:
        kernels: those that are factorized, by path, in the order of the tree.
        left: why the others stay dense, by path.
        cost: of the network, (dense, factorized); None where no cost was asked for.
        cost_name: its name and unit.
        responses: by path, the relative error of what a layer answers on the calibration batch,
            before its bias and nonlinearity; none without a calibration batch.
    """

    kernels: Mapping[str, PlannedKernel]
    left: Mapping[str, str] = field(default_factory=dict)
    cost: tuple[float, float] | None = None
    cost_name: str = ""
    responses: Mapping[str, float] = field(default_factory=dict)
    _made: Mapping[str, Made] = field(default_factory=dict, repr=False)

    def factorize(self, variables: Any) -> Any:
        """The variables with factorized kernels.

        The kernels that the plan was made for are as it found them, and so are biases that were
        fitted with them. Others, e.g. of the same network trained on, are decomposed at its ranks,
        without data.

        Raises:
            ValueError: if a kernel is missing, has another shape, or is not finite.
        """
        leaves, rebuild = self._leaves(variables)
        found = dict(leaves)
        for path, planned in self.kernels.items():
            known = self._made.get(path)
            if known is not None and known.is_of(leaves, path):
                found[path] = known.value
                found |= {bias: now for bias, (_, now) in known.biases.items()}
            else:
                found[path] = planned.decompose(leaves[path])
        return rebuild(found)

    def draw(self, variables: Any, key: Any) -> Any:
        """Freshly initialised variables, with fresh cores of the same variance for the kernels."""
        leaves, rebuild = self._leaves(variables)
        keys = jax.random.split(key, max(1, len(self.kernels)))
        drawn = {
            path: planned.draw(leaves[path], own)
            for (path, planned), own in zip(self.kernels.items(), keys, strict=False)
        }
        return rebuild({**leaves, **drawn})

    def _leaves(self, variables: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Any]]:
        """The variables by path, and what makes their tree of others."""
        paths, leaves, treedef = flat_paths(variables)
        for path in self.kernels:
            if path not in paths:
                raise InputError(f"the variables have no {path!r}{near(path, paths)}")
        by_path = dict(zip(paths, leaves, strict=True))
        return by_path, lambda found: jax.tree.unflatten(treedef, list(found.values()))

    def losing(self, most: float) -> dict[str, float]:
        """The kernels that lose more than a share, those that lose most first.

        Args:
            most: a relative error: of what a layer answers where that is known, or of its kernel.
        """
        errors = {
            path: self.responses.get(path, kernel.error) for path, kernel in self.kernels.items()
        }
        lossy = {path: error for path, error in errors.items() if error > most}
        return dict(sorted(lossy.items(), key=lambda item: -item[1]))

    def warn(self, most: float, stacklevel: int) -> None:
        """Warns once of all kernels that lose more than a share.

        Args:
            most: see `losing`.
            stacklevel: of the caller's caller, see `warnings.warn`.
        """
        lossy = self.losing(most)
        if lossy:
            named = [f"{path} {error:.0%}" for path, error in list(lossy.items())[:NAMED]]
            named += [f"and {len(lossy) - NAMED} more"] * (len(lossy) > NAMED)
            warnings.warn(
                f"{len(lossy)} of {len(self.kernels)} factorized kernels lose more than {most:.0%} "
                f"of their norm: {', '.join(named)}. Train on after factorizing (as --tensorize "
                'does), allow more, or leave them dense: kind={"' + next(iter(lossy)) + '": '
                '"dense", "*": "auto"}',
                LossyPlanWarning,
                stacklevel=stacklevel,
            )

    def __str__(self) -> str:
        answers = f" {'answers':>7}" if self.responses else ""
        lines = [
            f"{'kernel':<40} {'kind':<8} {'ranks':<22} {'error':>7} {'parameters':>21}{answers}"
        ]
        for kernel in self.kernels.values():
            before, after = kernel.parameters
            ranks = " ".join(map(str, kernel.ranks.values()))
            lines.append(
                f"{kernel.path.removeprefix('params/'):<40} {kernel.format.kind:<8} {ranks:<22} "
                f"{kernel.error:>7.4f} {before:>10,} {after:>10,}"
                + (f" {self.responses[kernel.path]:>7.4f}" if kernel.path in self.responses else "")
            )
            lines += [f"    {note}" for note in kernel.notes]
        lines += [
            f"{path.removeprefix('params/'):<40} dense: {why}" for path, why in self.left.items()
        ]
        if lossy := self.losing(LARGE):
            lines.append(
                f"{len(lossy)} of {len(self.kernels)} kernels lose more than {LARGE:.0%} of their "
                "norm: train on after factorizing, or allow more"
            )
        if self.cost is not None:
            cost, now = self.cost
            lines.append(f"{self.cost_name}: {cost:,.6g} -> {now:,.6g} ({now / cost:.1%})")
        return "\n".join(lines)


def planned_kernel(
    path: str, roles: str, one: Factorization, fit: Fitted | None = None
) -> PlannedKernel:
    """A kernel of the plan, with what is to be known of it."""
    lost = one.error if fit is None else fit.error
    notes = list(one.notes)
    if lost > LARGE:
        of = "its norm" if fit is None else "the norm of its answers"
        notes.append(f"loses {lost:.0%} of {of}: train on after factorizing, or allow more")
    planned = PlannedKernel(
        path=path,
        roles=roles,
        format=one.value.format,
        sizes=dict(one.value.sizes),
        error=one.error if fit is None else fit.kernel_error,
    )
    dense, now = planned.parameters
    if now >= dense:
        notes.append(f"holds {now:,} numbers, dense {dense:,}")
    return replace(planned, notes=tuple(notes))
