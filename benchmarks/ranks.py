"""Whether a factorization uses the budget that it is given, against trying all.

    python benchmarks/ranks.py --out results/ranks.json

makes a plan for every network, kind of tensor network and budget of FLOPs. A plan is traced again
as it runs. It is within 1 % under its budget (`landed`), or every kernel with one rank more at one
bond is traced, and none fits (`next`: the cheapest of them, in budgets). Where a budget is refused,
all ways to keep kernels dense or at ranks of 1 are traced, and none fits (`least`: the cheapest).
About 15 minutes on one core.
"""

import argparse
import functools
import itertools
import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from timing import report

import morph
import regularizers as reg
from morph.kernels.planned import PlannedKernel
from morph.kernels.ranks import attainable
from morph.tensorize.decision import TensorizePlan
from morph.tensorize.graphs import shell
from morph.tensorize.layers import kernels_of
from morph.tensorize.options import ladder
from morph.tensorize.plan import kinds_of

BUDGETS = (0.97, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
KINDS = ("svd", "tucker2", "tucker", "cp", "tt")
CLOSE, ROUNDING = 0.99, 1.0 + 1e-9


class Dense(nn.Module):
    """Wide enough that a rank is less than a hundredth."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """[N, 64] -> [N, 10]."""
        x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(10)(nn.relu(nn.Dense(128)(x)))


class Convolutions(nn.Module):
    """A stem of one channel, a stride, a depthwise and a grouped window."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """[N, 8, 8, 1] -> [N, 5]."""
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.relu(nn.Conv(32, (3, 3), strides=2)(x))
        x = x + nn.Conv(32, (5, 5), feature_group_count=32)(x)
        x = nn.relu(nn.Conv(32, (3, 3), feature_group_count=2)(x))
        return nn.Dense(5)(x.mean((1, 2)))


class Attention(nn.Module):
    """Kernels of three axes."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """[N, 7, 24] -> [N, 7, 3]."""
        x = x + nn.MultiHeadDotProductAttention(4, qkv_features=32)(x, x)
        return nn.Dense(3)(x + nn.Dense(24)(nn.gelu(nn.Dense(60)(x))))


class Narrow(nn.Module):
    """Every rank is a large part of it."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """[N, 6] -> [N, 2]."""
        x = nn.tanh(nn.Dense(9)(x))
        return nn.Dense(2)(nn.tanh(nn.Dense(4)(x)))


NETWORKS: Mapping[str, tuple[nn.Module, tuple[int, ...]]] = {
    "dense": (Dense(), (1, 64)),
    "convolutions": (Convolutions(), (1, 8, 8, 1)),
    "attention": (Attention(), (2, 7, 24)),
    "narrow": (Narrow(), (3, 6)),
}


class Subject:
    """A network with kernels of falling spectra, as trained ones have, and what it costs."""

    def __init__(self, name: str) -> None:
        model, shape = NETWORKS[name]
        self.x = jax.ShapeDtypeStruct(shape, jnp.float32)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.ones(shape))
        self.variables = jax.tree.map(
            lambda leaf: leaf * 0.97 ** jnp.arange(leaf.shape[-1]) if leaf.ndim > 1 else leaf,
            variables,
        )
        self.fn = model.apply
        self.graph = reg.trace_channels(self.fn, self.variables, self.x)
        self.dense = float(reg.flops(self.graph)())

    def leaf(self, path: str) -> Any:
        """A variable."""
        return functools.reduce(lambda tree, key: tree[key], path.split("/"), self.variables)

    def cost(self, kernels: Mapping[str, PlannedKernel]) -> float:
        """FLOPs with some kernels factorized, of the function that runs."""
        paths = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                kernels[name].struct(leaf.dtype)
                if (name := "/".join(key.key for key in path)) in kernels
                else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            ),
            self.variables,
        )
        return float(reg.flops(reg.trace_channels(morph.tensorized(self.fn), paths, self.x))())


def wider(kernels: Mapping[str, PlannedKernel]) -> Iterator[dict[str, PlannedKernel]]:
    """The same with one more rank at one bond, where that tells more apart."""
    for path, kernel in kernels.items():
        for bond, rank in kernel.ranks.items():
            sizes = {**kernel.sizes, bond: rank + 1}
            ranks = {b: sizes[b] for b in kernel.ranks}
            if attainable(kernel.format, sizes, ranks) == ranks:
                yield {**kernels, path: type(kernel)(
                    path=path, roles=kernel.roles, format=kernel.format, sizes=sizes, error=0.0
                )}  # fmt: skip


def row_of(
    subject: Subject, plan: TensorizePlan | None, least: float, most: float
) -> dict[str, Any]:
    """What a plan makes of its budget; None: it was refused."""
    if plan is None:
        return {"least": least / most, "good": least > most * ROUNDING}
    cost = subject.cost(plan.kernels)
    landed = cost / most
    row = {"landed": landed, "error": max((k.error for k in plan.kernels.values()), default=0.0)}
    if CLOSE <= landed <= ROUNDING or not plan.kernels:
        return {**row, "good": landed <= ROUNDING}
    dearer = (subject.cost(more) for more in wider(plan.kernels))
    after = min(dearer, default=float("inf")) / most
    return {**row, "next": after, "good": landed <= ROUNDING < after}


def least_cost(subject: Subject, kind: str) -> float:
    """The least of all ways to keep kernels dense, or at ranks of 1."""
    kinds, _ = kinds_of(kernels_of(subject.graph), kind)
    ones = {}
    for path, (roles, own) in kinds.items():
        steps = ladder(subject.leaf(path), roles, own, path=path)
        ranks = dict.fromkeys(steps.format.bonds, 1)
        ones[path] = shell(subject.graph, path, roles, steps, ranks)
    ways = itertools.product((True, False), repeat=len(ones))
    return min(
        subject.cost({path: ones[path] for path, is_one in zip(ones, way, strict=True) if is_one})
        for way in ways
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--budgets", nargs="*", default=list(BUDGETS), type=float)
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    warnings.simplefilter("ignore", morph.LossyPlanWarning)
    rows = []
    for name in flags.networks:
        subject = Subject(name)
        for kind in flags.kinds:
            least = 0.0
            for budget in flags.budgets:
                start = time.perf_counter()
                try:
                    plan = morph.tensorize_plan(
                        subject.graph, subject.variables, kind=kind, budget=budget
                    )
                except morph.BudgetError:
                    plan = None
                took = time.perf_counter() - start
                if plan is None:
                    least = least or least_cost(subject, kind)
                row = row_of(subject, plan, least, budget * subject.dense)
                rows.append({
                    "network": name, "kind": kind, "budget": budget, "refused": plan is None,
                    **row, "seconds": took,
                })  # fmt: skip
    report(rows, flags.out, rows_that_are_not_good=sum(not row["good"] for row in rows))


if __name__ == "__main__":
    main()
