"""Budget control: what is kept, how the strength moves, and what is asked in vain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from morph.budget import Controller, Schedule, check_feasible, strongest_within
from morph.expand import BudgetError

M, N, K = 5, 11, 3  # inputs, hidden, outputs


@pytest.fixture(scope="module")
def graph():
    def fn(variables, x):
        return jax.nn.relu(x @ variables["a"]) @ variables["b"]

    variables = {"a": jnp.ones((M, N)), "b": jnp.ones((N, K))}
    return reg.trace_channels(fn, variables, jnp.ones((1, M)))


@pytest.fixture(scope="module")
def cost(graph):
    return reg.flops(graph)


def test_strongest_channels_stay(cost):
    per_channel = 2 * (M + K)
    strengths = {"a": np.arange(N, dtype=float)}
    keep = strongest_within(cost, strengths, 4 * per_channel)["a"]
    np.testing.assert_array_equal(np.flatnonzero(keep), [7, 8, 9, 10])


def test_never_over_and_nothing_more_fits(cost):
    rng = np.random.default_rng(0)
    for limit in rng.uniform(2 * (M + K), 2 * (M + K) * N, 20):
        keep = strongest_within(cost, {"a": rng.random(N)}, limit)["a"]
        assert cost({"a": keep.sum()}) <= limit
        if keep.sum() < N:
            assert cost({"a": keep.sum() + 1}) > limit


def test_dead_channels_are_cut_first_and_the_strongest_always_stays(cost):
    strengths = {"a": np.where(np.arange(N) == 6, 1.0, 0.0)}
    keep = strongest_within(cost, strengths, 2 * (M + K))["a"]
    np.testing.assert_array_equal(np.flatnonzero(keep), [6])


def test_limit_out_of_reach(cost):
    with pytest.raises(BudgetError, match=r"cannot meet 15 FLOP: at least 16"):
        strongest_within(cost, {"a": np.ones(N)}, 15)


def test_feasibility_names_the_layers_and_the_floor(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost)
    check_feasible(regularizer, 2 * (M + K))
    with pytest.raises(
        BudgetError, match=r"costs 16 FLOP \(9\.1% of the seed\).*in a 10 FLOP, b 6 FLOP"
    ):
        check_feasible(regularizer, 15)


def test_schedule_falls_geometrically_and_stays():
    schedule = Schedule(budget_ratio=0.25, start=10, end=30)
    assert [schedule(step) for step in (0, 10, 20, 30, 99)] == [1.0, 1.0, 0.5, 0.25, 0.25]


def test_controller_pulls_harder_when_late_softer_when_early_and_lets_go(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost, threshold=0.0)
    schedule = Schedule(budget_ratio=0.5, start=0, end=100)
    controller = Controller(regularizer=regularizer, schedule=schedule)
    strengths = {"a": np.arange(1.0, N + 1)}
    late = controller.look(50, strengths, 1.0)
    assert late.strength > 1.0
    assert late.cost_ratio == 1.0
    early = controller.look(1, {"a": np.where(np.arange(N) < 3, 0.0, 1.0)}, 1.0)
    assert early.strength < 1.0
    assert not early.settled
    there = controller.look(100, {"a": np.where(np.arange(N) < 6, 0.0, 1.0)}, 1.0)
    assert there.settled
    assert cost({"a": late.keep["a"].sum()}) <= schedule(50) * cost()


def test_initial_strength_is_positive_and_falls_with_the_time_there_is(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost, threshold=0.0)
    strengths = {"a": np.ones(N, np.float32)}
    short, long = (
        Controller(
            regularizer=regularizer, schedule=Schedule(budget_ratio=0.5, start=0, end=end)
        ).initial_strength(strengths)
        for end in (30, 300)
    )
    assert short == pytest.approx(10 * long)
    # marginal cost 2 (M + K) over the seed's 2 (M + K) N is 1/N; a third of 30 steps is 10
    assert short == pytest.approx(N / 10)
