"""Which kernels of a network are factorized, how, and at which ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from morph.kernels.decompose import Factorization, factorize_stack
from morph.kernels.factorized import Factorized
from morph.kernels.formats import CORES, FORMATS
from morph.tensorize.budget import ranks_within, without_gain
from morph.tensorize.decision import LARGE, Made, TensorizePlan, planned_kernel
from morph.tensorize.fit import FITTED, RESPONSES, Calibration, calibrate, response_ladder
from morph.tensorize.graphs import Costing, by_layer, core_layer, cost_of, factorized_graph
from morph.tensorize.layers import Kernel, kernels_of
from morph.tensorize.options import Ladder, ladder, log_loss
from morph.vocabulary import AUTO, DENSE, KINDS
from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.channels.parts import layer_name
from regularizers.checks import FUNCTION, INPUTS, NAME, Rule, a, by_name, checked, number, whole
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.patterns import matching, spells

COSTING = Rule(
    asked="a function of a graph, e.g. reg.flops (not reg.flops(graph))",
    kind=lambda value: callable(value) and not isinstance(value, Cost),
)


@checked(
    graph=GRAPH,
    kind=NAME | by_name(NAME, "kinds by pattern"),
    energy=number(above=0.0, most=1.0),
    error=number(least=0.0, below=1.0),
    budget=number(above=0.0) | NAME,
    cost=NAME | COSTING,
    cores=whole(least=1),
    factors=a(Mapping, "the factors of every axis, by path"),
    calibration=INPUTS,
    response=NAME,
    evaluate=FUNCTION,
)
def tensorize_plan(
    graph: ChannelGraph,
    variables: Any,
    *,
    kind: str | Mapping[str, str] = AUTO,
    rank: int | str | Mapping[str, int] | None = None,
    energy: float | None = None,
    error: float | None = None,
    budget: float | str | None = None,
    cost: Costing | None = None,
    cores: int = CORES,
    factors: Mapping[str, Sequence[Sequence[int]]] | None = None,
    calibration: Sequence[Any] | None = None,
    response: str = "asymmetric",
    evaluate: Callable[[Any], float] | None = None,
) -> TensorizePlan:
    """Decides which kernels of a network become tensor networks, and how large.

    Exactly one of `rank`, `energy`, `error` and `budget` says how large. A kernel that would gain
    nothing stays dense, and so do those that the function uses in other ways than products,
    convolutions and lookups; the plan says which and why.

    Args:
        graph: of the function, from `reg.trace_channels`.
        variables: what it was traced with, as arrays.
        kind: `svd`, `tucker2`, `tucker`, `cp`, `tt`, `dense`, or `auto` (for windows of more than
            one position `tucker2`, or `cp` where the convolution is depthwise; `svd` for all else);
            or one for each pattern of paths, of which the first that matches counts:
            `{"Dense_*": "tt", "*": "dense"}`.
        rank: of all bonds, or by bond, or `"vbmf"`.
        energy: the share of power that every bond keeps.
        error: the relative error that a kernel may have.
        budget: what the network may cost: a ratio to now (`0.5`) or an amount (`"2MFLOP"`). Ranks
            are given to all kernels together so that they lose the least.
        cost: a name (`flops`, `size`, `edge_tpu`, ...) or a function of a graph, e.g. `reg.flops`:
            what the budget is of, and what a kernel has to gain in. Without it that is `flops`, and
            at given ranks, energy or error neither these nor the parameters of a kernel may rise.
        cores: of tensor trains.
        factors: of tensor trains, by path: the factors of each axis.
        calibration: the inputs of the function, as arrays of the shapes that it was traced with.
            Then it counts what layers answer on this batch, not what their kernels lose: `error`
            and `energy` of kind `svd` are of the answers; `budget` weighs their errors by what each
            does to the network's outputs; the cores of kind `svd` are fitted, and the bias that
            follows a layer (or the running mean of a batch norm) of any kind. Kernels inside of
            loops and tables that are looked up see no data.
        response: what is fitted: `linear`, each layer's answers to the original inputs;
            `asymmetric`, the original answers to the inputs that the network as factorized so far
            gives it, layer after layer; `relu`, the same behind the relu where one follows
            straight (Zhang et al. 2015). Only read with a calibration batch.
        evaluate: a loss of factorized variables, e.g. on held-out samples. The plan is made without
            data and, given a calibration batch, with each `response`; the one of least loss stays.

    Warns:
        LossyPlanWarning: once, if kernels (or, given a calibration batch, what their layers answer)
            lose more than half of their norm, and more than `error` or `energy` asked for.

    Raises:
        ValueError: if not exactly one of the four is given, a kind is unknown, a pattern matches
            nothing, a kernel is not finite, or the calibration batch does not fit.
        BudgetError: if the budget is below what the smallest ranks cost.

    Example:
        >>> graph = reg.trace_channels(model.apply, variables, x)               # doctest: +SKIP
        >>> plan = morph.tensorize_plan(graph, variables, budget=0.5)           # doctest: +SKIP
        >>> cores, fn = plan.factorize(variables), morph.tensorized(model.apply)  # doctest: +SKIP
    """
    decide = partial(
        _decided, graph, variables, kind=kind, rank=rank, energy=energy, error=error,
        budget=budget, cost=cost, cores=cores, factors=factors,
    )  # fmt: skip
    plan = decide(calibration=None if evaluate else calibration, response=response)
    if evaluate is not None:
        ways = RESPONSES if calibration is not None else ()
        plans = [plan, *(decide(calibration=calibration, response=way) for way in ways)]
        losses = [evaluate(one.factorize(variables)) for one in plans]
        plan = plans[int(np.nanargmin(losses))]
    asked = error or (math.sqrt(1.0 - energy) if energy else 0.0)
    plan.warn(max(LARGE, asked), stacklevel=4)
    return plan


def _decided(
    graph: ChannelGraph,
    variables: Any,
    *,
    kind: str | Mapping[str, str],
    rank: int | str | Mapping[str, int] | None,
    energy: float | None,
    error: float | None,
    budget: float | str | None,
    cost: Costing | None,
    cores: int,
    factors: Mapping[str, Sequence[Sequence[int]]] | None,
    calibration: Sequence[Any] | None,
    response: str,
) -> TensorizePlan:
    """See `tensorize_plan`."""
    told = {"rank": rank, "energy": energy, "error": error, "budget": budget}
    given = [name for name, value in told.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            "give exactly one of rank, energy, error and budget, found "
            f"{' and '.join(given) or 'none of them'}"
        )
    if response not in RESPONSES:
        raise InputError(f"response {response!r} is none of {', '.join(RESPONSES)}")
    costing = "flops" if cost is None else cost
    leaves, _ = graph.leaves(variables)
    known = kernels_of(graph)
    kinds, left = kinds_of(known, kind)
    for path in factors or {}:
        if kinds.get(path, ("", ""))[1] != "tt":
            raise InputError(f"factors: {path!r} is not a kernel of kind tt{near(path, kinds)}")
    data = None
    if calibration is not None:
        data = calibrate(graph, leaves, calibration, {path: known[path] for path in kinds})
    seen = data.layers if data else {}

    def shaping(path: str) -> dict[str, Any]:
        tt = kinds[path][1] == "tt"
        return {
            "path": path,
            **({"cores": cores, "factors": (factors or {}).get(path)} if tt else {}),
        }

    def rungs(path: str) -> Ladder:
        roles, own = kinds[path]
        if path in seen:
            return response_ladder(seen[path], leaves[path], own, **shaping(path))
        return ladder(leaves[path], roles, own, **shaping(path))

    def cut(path: str, ranks: Mapping[str, int]) -> Factorized:
        roles, own = kinds[path]
        return factorize_stack(leaves[path], roles, own, **shaping(path), ranks=ranks).value

    chosen: dict[str, dict[str, Any]] = {}
    if budget is not None:
        ladders = {path: rungs(path) for path in kinds}
        blind = dict.fromkeys(kinds, log_loss)
        loss_of = data.losses(ladders, cut) if data else blind
        options = ranks_within(graph, kinds, ladders, loss_of, budget, costing)
        chosen = {path: {"ranks": option.ranks} for path, option in options.items()}
        left |= {
            path: "dense costs least for what it keeps" for path in kinds if path not in chosen
        }
    else:
        asked = {"ranks": rank, "energy": energy, "error": error}
        for path, (_, own) in kinds.items():
            by_answers = own == FITTED and path in seen and rank is None
            chosen[path] = {"ranks": seen[path].least_rank(energy, error)} if by_answers else asked
    found = {}
    for path, how in chosen.items():
        roles, own = kinds[path]
        found[path] = factorize_stack(leaves[path], roles, own, **shaping(path), **how)
    if budget is None:
        shells = {path: planned_kernel(path, kinds[path][0], one) for path, one in found.items()}
        left |= without_gain(graph, shells, (costing,) if cost is not None else ("flops", "size"))
    found = {path: one for path, one in found.items() if path not in left}
    return with_costs(_plan(found, left, leaves, kinds, data, response), graph, costing)


def _plan(
    found: Mapping[str, Factorization],
    left: Mapping[str, str],
    leaves: Mapping[str, Any],
    kinds: Mapping[str, tuple[str, str]],
    data: Calibration | None,
    response: str,
) -> TensorizePlan:
    """The plan of decomposed kernels, fitted to data where there are any."""
    fits = data.fit({path: one.value for path, one in found.items()}, response) if data else {}
    made = {}
    for path, one in found.items():
        fit = fits.get(path)
        biases = {bias: (leaves[bias], now) for bias, now in fit.biases.items()} if fit else {}
        value = fit.value if fit else one.value
        made[path] = Made(kernel=leaves[path], value=value, biases=biases)
    return TensorizePlan(
        kernels={
            path: planned_kernel(path, kinds[path][0], one, fits.get(path))
            for path, one in found.items()
        },
        left=left,
        responses={path: fit.error for path, fit in fits.items()},
        _made=made,
    )


def with_costs(plan: TensorizePlan, graph: ChannelGraph, cost: Costing) -> TensorizePlan:
    """The plan with what the network and every layer cost, dense and factorized."""
    before = cost_of(graph, cost)
    after = cost_of(factorized_graph(graph, plan.kernels), cost, before)
    dense, now = by_layer(before), by_layer(after)
    kernels = {
        path: replace(
            kernel,
            costs={
                before.name: (
                    dense.get(layer_name(path), 0.0),
                    sum(now.get(layer, 0.0) for layer in {layer_name(path), core_layer(path)}),
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


def kinds_of(
    kernels: Mapping[str, Kernel], kind: str | Mapping[str, str]
) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    """For each kernel that can be factorized its roles and kind; why the others cannot.

    Raises:
        ValueError: if a kind is unknown or a pattern matches nothing.
    """
    patterns = {"*": kind} if isinstance(kind, str) else dict(kind)
    for own in patterns.values():
        if own not in KINDS:
            raise InputError(f"kind {own!r} is none of {', '.join(KINDS)}{near(own, FORMATS)}")
    matching(list(patterns), list(kernels), "kind")
    kinds: dict[str, tuple[str, str]] = {}
    left: dict[str, str] = {}
    for path, kernel in kernels.items():
        own = next((k for pattern, k in patterns.items() if spells(pattern, path)), DENSE)
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
            auto = ("cp" if kernel.depthwise else "tucker2") if wide else "svd"
            kinds[path] = roles, auto if own == AUTO else own
    return kinds, left
