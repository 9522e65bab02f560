"""Which kernels of a network are factorized, how, and at which ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import jax
import numpy as np

from morph.amounts import parse_budget
from morph.expand import BudgetError
from morph.tensorize.allocate import Option, allocate
from morph.tensorize.decompose import Factorization
from morph.tensorize.evaluate import evaluate
from morph.tensorize.factorized import STACK, Factorized
from morph.tensorize.formats import CORES, FORMATS
from morph.tensorize.layers import Kernel, kernels_of
from morph.tensorize.options import ladder, priced
from morph.tensorize.planned import PlannedKernel, decompose
from morph.tensorize.tensorized import contracted
from regularizers.channels.calls import flat_paths
from regularizers.channels.graph import ChannelGraph, layer_name, near, trace_channels
from regularizers.channels.jaxprs import ClosedJaxpr, dtype_of, shape_of
from regularizers.costs.cost import Cost
from regularizers.costs.named import cost_named

AUTO, DENSE = "auto", "dense"
ROUNDS = 6  # of allocation, until the cost of the whole network is close to the budget
CLOSE = 0.01  # below the budget
Costing = str | Callable[[ChannelGraph], Cost]


@dataclass(frozen=True, kw_only=True)
class TensorizePlan:
    """Which kernels are factorized; printable, and JSON through `Architecture`.

    Attributes:
        kernels: those that are factorized, by path, in the order of the tree.
        left: why the others stay dense, by path.
        cost: of the network, (dense, factorized); None where no cost was asked for.
        cost_name: its name and unit.
    """

    kernels: Mapping[str, PlannedKernel]
    left: Mapping[str, str] = field(default_factory=dict)
    cost: tuple[float, float] | None = None
    cost_name: str = ""
    _made: Mapping[str, tuple[Any, Factorized]] = field(default_factory=dict, repr=False)

    def factorize(self, variables: Any) -> Any:
        """The variables with factorized kernels.

        The kernels that the plan was made for are as it found them; others, e.g. of the same
        network trained on, are decomposed at its ranks.

        Raises:
            ValueError: if a kernel is missing, has another shape, or is not finite.
        """

        def made(kernel: Any, planned: PlannedKernel) -> Factorized:
            known = self._made.get(planned.path)
            if known is not None and (known[0] is kernel or np.array_equal(known[0], kernel)):
                return known[1]
            return planned.decompose(kernel)

        return self._replaced(variables, made)

    def draw(self, variables: Any, key: Any) -> Any:
        """Freshly initialised variables, with fresh cores of the same variance for the kernels."""
        keys = dict(
            zip(self.kernels, jax.random.split(key, max(1, len(self.kernels))), strict=False)
        )
        return self._replaced(
            variables, lambda leaf, planned: planned.draw(leaf, keys[planned.path])
        )

    def _replaced(self, variables: Any, made: Callable[[Any, PlannedKernel], Factorized]) -> Any:
        paths, leaves, treedef = flat_paths(variables)
        for path in self.kernels:
            if path not in paths:
                raise ValueError(f"the variables have no {path!r}{near(path, paths)}")
        leaves = [
            made(leaf, self.kernels[path]) if path in self.kernels else leaf
            for path, leaf in zip(paths, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, leaves)

    def __str__(self) -> str:
        lines = [f"{'kernel':<40} {'kind':<8} {'ranks':<22} {'error':>7} {'parameters':>21}"]
        for kernel in self.kernels.values():
            before, after = kernel.parameters
            ranks = " ".join(map(str, kernel.ranks.values()))
            lines.append(
                f"{kernel.path.removeprefix('params/'):<40} {kernel.format.kind:<8} {ranks:<22} "
                f"{kernel.error:>7.4f} {before:>10,} {after:>10,}"
            )
            lines += [f"    {note}" for note in kernel.notes]
        lines += [
            f"{path.removeprefix('params/'):<40} dense: {why}" for path, why in self.left.items()
        ]
        if self.cost is not None:
            cost, now = self.cost
            lines.append(f"{self.cost_name}: {cost:,.6g} -> {now:,.6g} ({now / cost:.1%})")
        return "\n".join(lines)


def tensorize_plan(
    graph: ChannelGraph,
    variables: Any,
    *,
    kind: str | Mapping[str, str] = AUTO,
    rank: int | str | Mapping[str, int] | None = None,
    energy: float | None = None,
    error: float | None = None,
    budget: float | str | None = None,
    cost: Costing = "flops",
    cores: int = CORES,
    factors: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> TensorizePlan:
    """Decides which kernels of a network become tensor networks, and how large.

    Exactly one of `rank`, `energy`, `error` and `budget` says how large. A kernel that would not
    get smaller stays dense, and so do those that the function uses in other ways than products,
    convolutions and lookups, e.g. in grouped convolutions; the plan says which and why.

    Args:
        graph: of the function, from `reg.trace_channels`.
        variables: what it was traced with, as arrays.
        kind: `svd`, `tucker2`, `tucker`, `cp`, `tt`, `dense`, or `auto` (`tucker2` for windows of
            more than one position, `svd` for all else); or one for each pattern of paths, of which
            the first that matches counts: `{"Dense_*": "tt", "*": "dense"}`.
        rank: of all bonds, or by bond, or `"vbmf"`.
        energy: the share of power that every bond keeps.
        error: the relative error that a kernel may have.
        budget: what the network may cost: a ratio to now (`0.5`) or an amount (`"2MFLOP"`). Ranks
            are given to all kernels together so that they lose the least.
        cost: a name (`flops`, `size`, `edge_tpu`, ...) or a function of a graph, e.g. `reg.flops`.
        cores: of tensor trains.
        factors: of tensor trains, by path: the factors of each axis.

    Raises:
        ValueError: if not exactly one of the four is given, a kind is unknown, a pattern matches
            nothing, or a kernel is not finite.
        BudgetError: if the budget is below what the least ranks cost.

    Example:
        >>> graph = reg.trace_channels(model.apply, variables, x)               # doctest: +SKIP
        >>> plan = morph.tensorize_plan(graph, variables, budget=0.5)           # doctest: +SKIP
        >>> cores, fn = plan.factorize(variables), morph.tensorized(model.apply)  # doctest: +SKIP
    """
    told = {"rank": rank, "energy": energy, "error": error, "budget": budget}
    given = [name for name, value in told.items() if value is not None]
    if len(given) != 1:
        raise ValueError(
            "give exactly one of rank, energy, error and budget, found "
            f"{' and '.join(given) or 'none of them'}"
        )
    leaves = dict(zip(graph.variables, graph.leaves(variables)[0], strict=True))
    kinds, left = _kinds(kernels_of(graph), kind)
    known = factors or {}
    for path in known:
        if kinds.get(path, ("", ""))[1] != "tt":
            raise ValueError(f"factors: {path!r} is no kernel of kind tt{near(path, kinds)}")

    def shaping(path: str) -> dict[str, Any]:
        tt = kinds[path][1] == "tt"
        return {"path": path, **({"cores": cores, "factors": known.get(path)} if tt else {})}

    if budget is None:
        chosen: Mapping[str, Mapping[str, Any]] = {
            path: {"ranks": rank, "energy": energy, "error": error} for path in kinds
        }
    else:
        ladders = {
            path: ladder(leaves[path], roles, own, **shaping(path))
            for path, (roles, own) in kinds.items()
        }
        options = _allocated(graph, kinds, ladders, budget, cost, cores, known)
        chosen = {path: {"ranks": option.ranks} for path, option in options.items()}
        left |= {
            path: "dense costs least for what it keeps" for path in kinds if path not in chosen
        }
    made: dict[str, tuple[Any, Factorized]] = {}
    kernels: dict[str, PlannedKernel] = {}
    for path, how in chosen.items():
        roles, own = kinds[path]
        found = decompose(leaves[path], roles, own, **shaping(path), **how)
        if found.value.parameters >= leaves[path].size:
            left[path] = (
                f"{own} at ranks {found.value.ranks} holds {found.value.parameters:,} numbers, "
                f"dense {leaves[path].size:,}"
            )
            continue
        made[path] = leaves[path], found.value
        kernels[path] = _planned(path, roles, found)
    plan = TensorizePlan(kernels=kernels, left=left, _made=made)
    return with_costs(plan, graph, cost)


def with_costs(plan: TensorizePlan, graph: ChannelGraph, cost: Costing) -> TensorizePlan:
    """The plan with what the network and every layer cost, dense and factorized."""
    before = _cost(graph, cost)
    after = _cost(factorized_graph(graph, plan.kernels), cost)
    dense, now = _by_layer(before), _by_layer(after)
    kernels = {
        path: replace(
            kernel,
            costs={
                before.name: (
                    dense.get(layer_name(path), 0.0),
                    now.get(layer_name(path), 0.0) + now.get(_core_layer(path), 0.0),
                )
            },
        )
        for path, kernel in plan.kernels.items()
    }
    return replace(
        plan,
        kernels=kernels,
        cost=(before.seed, after.seed),
        cost_name=f"{before.name} [{before.unit}]",
    )


def factorized_graph(graph: ChannelGraph, kernels: Mapping[str, PlannedKernel]) -> ChannelGraph:
    """The channel graph of the same function with factorized kernels; bonds are groups of it."""
    closed = ClosedJaxpr(graph.jaxpr, graph.body.consts)
    variables = {
        path: kernels[path].struct(variable.dtype)
        if path in kernels
        else jax.ShapeDtypeStruct(variable.shape, variable.dtype)
        for path, variable in graph.variables.items()
    }
    inputs = [
        jax.ShapeDtypeStruct(shape_of(v), dtype_of(v)) for v in graph.jaxpr.invars[len(variables) :]
    ]

    def fn(variables: Mapping[str, Any], *inputs: Any) -> list[Any]:
        return evaluate(
            closed, [*(variables[path] for path in graph.variables), *inputs], contracted
        )

    return trace_channels(fn, variables, *inputs)


def _cost(graph: ChannelGraph, cost: Costing) -> Cost:
    return cost_named(graph, cost) if isinstance(cost, str) else cost(graph)


def _by_layer(cost: Cost, widths: Mapping[str, int] | None = None) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in cost.table(widths):
        found[line.layer] = found.get(line.layer, 0.0) + line.cost
    return found


def _planned(path: str, roles: str, found: Factorization) -> PlannedKernel:
    return PlannedKernel(
        path=path,
        roles=roles,
        format=found.value.format,
        sizes=dict(found.value.sizes),
        error=found.error,
        notes=found.notes,
    )


def _kinds(
    kernels: Mapping[str, Kernel], kind: str | Mapping[str, str]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """For each kernel that can be factorized its roles and kind; why the others cannot.

    Raises:
        ValueError: if a kind is unknown or a pattern matches nothing.
    """
    patterns = {"*": kind} if isinstance(kind, str) else dict(kind)
    for pattern, own in patterns.items():
        if own not in (*FORMATS, AUTO, DENSE):
            raise ValueError(
                f"kind {own!r} is none of {', '.join((*FORMATS, AUTO, DENSE))}{near(own, FORMATS)}"
            )
        if not any(_matches(path, pattern) for path in kernels):
            raise ValueError(f"kind: {pattern!r} matches no kernel{near(pattern, kernels)}")
    kinds: dict[str, tuple[str, str]] = {}
    left: dict[str, str] = {}
    for path, kernel in kernels.items():
        own = next((k for pattern, k in patterns.items() if _matches(path, pattern)), DENSE)
        roles = kernel.roles
        if own == DENSE:
            left[path] = "as asked"
        elif kernel.dense_because:
            left[path] = kernel.dense_because
        elif not {"i", "o"} <= set(roles) or roles.count("b") > 1:
            left[path] = (
                f"its axes have the roles {roles!r}: there is no input or no output to part"
            )
        else:
            window = [n for n, role in zip(kernel.shape, roles, strict=True) if role == "s"]
            wide = any(n > 1 for n in window)
            kinds[path] = roles, ("tucker2" if wide else "svd") if own == AUTO else own
    return kinds, left


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern names a kernel, by its path, its layer or a module around that."""
    parts = path.removeprefix("params/").split("/")
    names = [path, *("/".join(parts[:stop]) for stop in range(1, len(parts) + 1))]
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _allocated(
    graph: ChannelGraph,
    kinds: Mapping[str, tuple[str, str]],
    ladders: Mapping[str, Sequence[tuple[dict[str, int], float]]],
    budget: float | str,
    costing: Costing,
    cores: int,
    factors: Mapping[str, Sequence[Sequence[int]]],
) -> dict[str, Option]:
    """The ranks for a budget; kernels that are not in it stay dense.

    What a layer costs at some ranks is read off one graph, in which the bonds are channel groups.
    That is not the whole truth: parts may not add up (latency, peaks of memory), and at other ranks
    another order of contraction can be cheaper. So the whole is priced too, and the parts get less
    or more until it fits.
    """
    seed = _cost(graph, costing)
    most = parse_budget(budget, seed)
    if most >= seed.seed:
        return {}

    def shells(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, PlannedKernel]:
        return {
            path: _shell(graph, path, *kinds[path], own, cores, factors.get(path))
            for path, own in ranks.items()
        }

    middle: dict[str, PlannedKernel] = {}
    for path, rungs in ladders.items():
        for ranks, _ in rungs:  # the first that halves the kernel, or the last
            middle |= shells({path: ranks})
            dense_size, size = middle[path].parameters
            if 2 * size <= dense_size:
                break
    whole = factorized_graph(graph, middle)
    ceiling = _cost(whole, costing)
    booked, rest = _by_layer(seed), _by_layer(ceiling)
    dense, options = {}, {}
    for path, rungs in ladders.items():
        layer, own = layer_name(path), _core_layer(path)
        together = [other for other in kinds if layer_name(other) == layer]
        share = _size(graph, [path]) / _size(graph, together)
        dense[path] = share * (booked.get(layer, 0.0) - rest.get(layer, 0.0))
        groups = {bond: _group(whole, middle[path], bond) for bond in middle[path].ranks}
        if own in rest and all(groups.values()):
            price = _price(ceiling.of_layers(own), groups)
            options[path] = priced(kinds[path][1], rungs, price)
    fixed = seed.seed - sum(dense.values())
    least = fixed + sum(
        min([dense[path], *(option.cost for option in options.get(path, ()))]) for path in dense
    )
    if least > most:
        raise BudgetError(
            f"a budget of {seed.show(most)} is out of reach: with every kernel at its least ranks "
            f"the network costs {seed.show(least)} (now {seed.show(seed.seed)}, of which "
            f"{seed.show(fixed)} in what is not factorized). Raise the budget, shrink the network "
            "first, or let more kernels be factorized."
        )
    target, best, best_total = most, None, 0.0
    for _ in range(ROUNDS):
        chosen = allocate(dense, options, max(target, least) - fixed)
        picked = {path: option for path, option in chosen.items() if option is not None}
        now = factorized_graph(graph, shells({path: o.ranks for path, o in picked.items()}))
        total = _cost(now, costing).seed
        if best_total < total <= most * (1.0 + 1e-9):
            best, best_total = picked, total
        if (1.0 - CLOSE) * most <= total <= most * (1.0 + 1e-9):
            break
        target -= 1.02 * (total - most)
    if best is None:
        raise BudgetError(
            f"no ranks were found at which {seed.name} is at most {seed.show(most)}; the last "
            f"tried cost {seed.show(total)}. Raise the budget."
        )
    return best


def _size(graph: ChannelGraph, paths: Sequence[str]) -> int:
    """How many numbers some variables hold."""
    return sum(math.prod(graph.variables[path].shape) for path in paths)


def _core_layer(path: str) -> str:
    """What the layer of a kernel's cores is called."""
    return layer_name(f"{path}/core")


def _price(cost: Cost, groups: Mapping[str, str]) -> Callable[[Mapping[str, int]], float]:
    return lambda ranks: float(cost({groups[bond]: rank for bond, rank in ranks.items()}))


def _group(graph: ChannelGraph, kernel: PlannedKernel, bond: str) -> str:
    """The channel group that a bond is; "" if it is none, since inference fixed it."""
    for name, labels in zip(kernel.format.names, kernel.format.labels, strict=True):
        if bond in labels:
            axis = graph.variables[f"{kernel.path}/{name}"].axes[labels.index(bond)]
            return axis if isinstance(axis, str) else ""
    raise AssertionError(f"no core has {bond!r}")


def _shell(
    graph: ChannelGraph,
    path: str,
    roles: str,
    kind: str,
    ranks: Mapping[str, int],
    cores: int,
    factors: Sequence[Sequence[int]] | None,
) -> PlannedKernel:
    """A planned kernel before anything is decomposed."""
    shape = graph.variables[path].shape
    own = [n for n, role in zip(shape, roles, strict=True) if role != "b"]
    options = {"cores": cores, "factors": factors} if kind == "tt" else {}
    format, sizes = FORMATS[kind](own, roles.replace("b", ""), **options)
    sizes = {**sizes, **ranks}
    if "b" in roles:
        axis = roles.index("b")
        format, sizes = format.stacked(axis), {STACK: shape[axis], **sizes}
    return PlannedKernel(path=path, roles=roles, format=format, sizes=sizes, error=0.0)
