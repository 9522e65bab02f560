"""The walk to a budget by measured curves."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from morph.pruning.curves import Walk


class Told:
    """Judges by a formula: what each group has lost, times a price; a block by its own."""

    def __init__(self, graph, prices, block=0.0):
        self.graph, self.prices, self.block, self.asked = graph, prices, block, 0

    def value(self, alive, removed=()):
        self.asked += 1
        lost = {name: 1.0 - kept.mean() for name, kept in alive.items()}
        return sum(self.prices[n] * lost[n] ** 2 for n in lost) + self.block * len(removed)


def walk_of(case, prices, limit, **more):
    judge = Told(more.pop("graph", case.graph), prices, more.pop("block", 0.0))
    cost = more.pop("cost", case.cost)
    heard = []
    walk = Walk(
        judge=judge,
        cost=cost,
        ranked={name: np.arange(width) for name, width in judge.graph.widths.items()},
        widths=dict(judge.graph.widths),
        removed=frozenset(),
        blocks=more.pop("blocks", ()),
        min_width=more.pop("min_width", 1),
        round_to=more.pop("round_to", 1),
        loss=0.0,
        heard=heard.append,
    )
    walk.to(limit)
    assert heard == sorted(heard)
    return walk


def test_what_costs_least_goes_first_and_what_fits_is_taken_back(case):
    names = list(case.graph.widths)
    for cheap in names:
        prices = {name: 1e-3 if name == cheap else 1.0 for name in names}
        walk = walk_of(case, prices, 0.8 * case.cost.seed)
        shares = {name: walk.widths[name] / case.graph.widths[name] for name in names}
        assert min(shares, key=shares.get) == cheap
        assert walk.price(walk.widths, walk.removed) <= 0.8 * case.cost.seed
        for name, width in walk.widths.items():
            if width < case.graph.widths[name]:
                assert case.cost({**walk.widths, name: width + 1}) > 0.8 * case.cost.seed


def test_floors_and_multiples_hold(case):
    prices = dict.fromkeys(case.graph.widths, 1.0)
    least = dict.fromkeys(prices, 2) | {"a": 7}
    walk = walk_of(case, prices, 0.7 * case.cost.seed, min_width=least, round_to=2)
    assert walk.widths["a"] >= 8  # the least multiple of 2
    assert all(width % 2 == 0 for width in walk.widths.values())


@pytest.mark.parametrize("price", [1e-6, 10.0])
def test_blocks_compete_in_the_same_currency(case, price):
    (block,) = case.graph.blocks
    prices = dict.fromkeys(case.graph.widths, 1.0)
    walk = walk_of(case, prices, 0.7 * case.cost.seed, blocks=(block,), block=price)
    assert (block in walk.removed) == (price < 1.0)
    assert walk.price(walk.widths, walk.removed) <= 0.7 * case.cost.seed
    inner = case.graph.blocks[block].groups
    assert all(
        walk.price({**walk.widths, n: 1}, walk.removed) == walk.price(walk.widths, walk.removed)
        for n in inner
    ) == (block in walk.removed)


def test_of_towers_one_stays():
    def fn(v, x):
        towers = [jnp.maximum(x @ v[n], 0.0) for n in ("one", "other")]
        return jnp.concatenate(towers, -1) @ v["out"]

    v = {"one": jnp.ones((3, 4)), "other": jnp.ones((3, 5)), "out": jnp.ones((9, 2))}
    graph = reg.trace_channels(fn, v, jnp.ones((1, 3)))
    case = SimpleNamespace(graph=graph, cost=reg.flops(graph))
    prices = dict.fromkeys(graph.widths, 1.0)
    walk = walk_of(case, prices, 0.3 * case.cost.seed, blocks=tuple(graph.blocks))
    assert len(walk.removed) == len(graph.blocks) - 1 == 1
