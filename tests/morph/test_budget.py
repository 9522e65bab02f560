"""Budget control: what is kept, how the strength moves, and what is asked in vain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg
from morph.budget import Controller, Schedule, _Cuts, check_feasible, strongest_within
from morph.expand import BudgetError
from regularizers.costs.cost import Cost, Line

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


def one_by_one(cost, strengths, limit):
    """What `strongest_within` does, a channel at a time."""
    widths = cost.vector({name: int(np.sum(s > 0)) or 1 for name, s in strengths.items()})
    marginal = dict(zip(cost.groups, np.asarray(cost.marginal(widths)), strict=True))
    ranked = sorted(
        (s[c] / max(float(marginal[name]), 1e-30), name, c)
        for name, s in strengths.items()
        for c in np.argsort(-s, kind="stable")[1:]
    )
    keep = {name: np.ones(len(s), bool) for name, s in strengths.items()}
    width = lambda: {name: int(kept.sum()) for name, kept in keep.items()}  # noqa: E731
    cut = []
    for _, name, c in ranked:
        if cost(width()) <= limit:
            break
        keep[name][c] = False
        cut.append((name, c))
    done = set()
    for name, c in reversed(cut):
        keep[name][c] = name not in done
        if name not in done and cost(width()) > limit:
            keep[name][c] = False
            done.add(name)
    return keep


@pytest.fixture(scope="module")
def stepped():
    """Two groups, one of which costs in steps of 4 channels."""
    groups = {"a": 40, "b": 60}
    line = Line(layer="all", detail="")
    return Cost(
        name="stepped",
        unit="coins",
        groups=groups,
        lines=(line,) * 2,
        amounts=lambda w, form: (
            jnp.stack([3.0 * form.ceil(w[0] / 4), 0.5 * w[1]])
            if isinstance(w, jax.Array)
            else np.stack([3.0 * form.ceil(w[0] / 4), 0.5 * w[1]])
        ),
    )


def test_many_at_a_time_is_as_one_by_one(stepped):
    rng = np.random.default_rng(0)
    for limit in rng.uniform(10.0, 50.0, 12):
        strengths = {"a": rng.random(40), "b": rng.random(60)}
        keep = strongest_within(stepped, strengths, limit)
        expected = one_by_one(stepped, strengths, limit)
        for name in strengths:
            np.testing.assert_array_equal(keep[name], expected[name])


def test_a_step_that_is_paid_for_is_filled(stepped):
    strengths = {"a": np.linspace(2.0, 1.0, 40), "b": np.full(60, 9.0)}
    keep = strongest_within(stepped, strengths, 45.0)
    assert (keep["a"].sum(), keep["b"].sum()) == (20, 60)


@pytest.fixture(scope="module")
def ragged():
    """A channel costs 1, and a width that is no multiple of 4 costs 3 more."""

    def amounts(widths, form):
        del form
        xp = jnp if isinstance(widths, jax.Array) else np
        return xp.stack([widths[0], 3.0 * (widths[0] % 4 > 0)])

    lines = (Line(layer="all", detail=""),) * 2
    return Cost(name="ragged", unit="coins", groups={"a": 9}, lines=lines, amounts=amounts)


def test_what_costs_nothing_more_is_filled(ragged):
    cuts = _Cuts(cost=ragged, limit=8.0, position=np.zeros(9, int))
    cut = np.asarray([5, 6, 7, 8])  # leaves 5, which cost 8, as 8 do
    assert cuts.cost_without(cut) == 8.0
    np.testing.assert_array_equal(cuts.filled(cut), [8])
    np.testing.assert_array_equal(cuts.taken_back(cut), cut)  # a sixth channel does not fit


def test_filled_within_the_limit(ragged):
    strengths = {"a": np.linspace(2.0, 1.0, 9)}
    for limit in (4.0, 5.5, 6.5, 8.0, 11.0, 12.0):
        widths = [
            int(strongest_within(ragged, strengths, limit, fill=fill)["a"].sum())
            for fill in (False, True)
        ]
        assert widths[0] <= widths[1]
        assert max(ragged({"a": width}) for width in widths) <= limit


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
    state = reg.proximal(optax.sgd(0.1), regularizer).init(
        {"a": jnp.ones((M, N)), "b": jnp.ones((N, K))}
    )
    for look, strength, held in ((late, late.strength, 0), (there, 0.0, 6)):
        now = look.obeyed(state)
        assert now.strength == pytest.approx(strength)
        np.testing.assert_array_equal(now.protected["a"], look.keep["a"])
        assert now.held["a"].sum() == held
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
