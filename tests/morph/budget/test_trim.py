"""What is cut: never over the limit, and nothing more would fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import regularizers as reg
from morph.budget.trim import _Cuts, allowed_widths, strongest_within
from morph.errors import BudgetError
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


def test_no_living_channel_goes_to_make_room_for_dead_ones():
    def fn(v, x):
        return jax.nn.relu(jax.nn.relu(x @ v["a"]) @ v["b"]) @ v["c"]

    variables = {"a": jnp.ones((M, N)), "b": jnp.ones((N, 7)), "c": jnp.ones((7, K))}
    cost = reg.flops(reg.trace_channels(fn, variables, jnp.ones((1, M))))
    rng = np.random.default_rng(0)
    for _ in range(20):
        strengths = {n: rng.random(w) * (rng.random(w) < 0.6) for n, w in cost.groups.items()}
        strengths = {name: np.maximum(s, 0.1 * (s == s.max())) for name, s in strengths.items()}
        alive = float(cost({name: int((s > 0).sum()) for name, s in strengths.items()}))
        keep = strongest_within(cost, strengths, rng.uniform(1.0, 1.2) * alive, fill=True)
        assert all(keep[name][s > 0].all() for name, s in strengths.items())


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
        return xp.stack([widths[0], xp.where(widths[0] % 4 > 0, 3.0, 0.0)])

    lines = (Line(layer="all", detail=""),) * 2
    return Cost(name="ragged", unit="coins", groups={"a": 9}, lines=lines, amounts=amounts)


def test_what_costs_nothing_more_is_filled(ragged):
    one = np.ones(9, int)
    cuts = _Cuts(cost=ragged, limit=8.0, position=0 * one, size=one, loss=1.0 * one)
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


def test_widths_that_are_allowed():
    assert allowed_widths(5) == [5, 4, 3, 2, 1]
    assert allowed_widths(10, 3, 4) == [10, 8, 4]
    assert allowed_widths(8, 5, 4) == [8]
    assert allowed_widths(3, 2, 4) == [3, 2]
    assert allowed_widths(3, 9) == [3]


@pytest.mark.parametrize(("floors", "round_to"), [({"a": 7}, 1), ({"b": 9}, 4), (3, 8)])
def test_floors_and_multiples_hold(stepped, floors, round_to):
    rng = np.random.default_rng(0)
    least = {name: floors if isinstance(floors, int) else floors.get(name, 1) for name in "ab"}
    for limit in rng.uniform(15.0, 50.0, 8):
        strengths = {"a": rng.random(40), "b": rng.random(60)}
        keep = strongest_within(
            stepped, strengths, limit, min_width=floors, round_to=round_to, fill=True
        )
        widths = {name: int(kept.sum()) for name, kept in keep.items()}
        assert stepped(widths) <= limit
        for name, width in widths.items():
            assert width >= least[name]
            assert width % round_to == 0 or width == stepped.groups[name]
            gone = strengths[name][~keep[name]]  # always the weakest
            assert not len(gone) or gone.max() < strengths[name][keep[name]].min()


def test_exchanges_land_within_a_per_cent():
    """Channels of 7 and 11 coins: taking back what fits leaves up to 6."""
    costs = {"a": 7.0, "b": 11.0}

    def amounts(widths, form):
        xp = jnp if isinstance(widths, jax.Array) else np
        return xp.stack([7.0 * widths[0], 11.0 * widths[1]])

    cost = Cost(
        name="coins",
        unit="coins",
        groups={"a": 40, "b": 40},
        lines=(Line(layer="all", detail=""),) * 2,
        amounts=amounts,
    )
    rng = np.random.default_rng(0)
    for limit in rng.integers(200, 700, 20):
        strengths = {name: rng.random(40) for name in costs}
        left = {}
        for fill in (False, True):
            keep = strongest_within(cost, strengths, float(limit), fill=fill)
            left[fill] = 1.0 - cost({name: k.sum() for name, k in keep.items()}) / limit
        assert 0.0 <= left[True] <= min(0.01, left[False])


def test_the_rounding_of_sums_decides_nothing(cost):
    rng = np.random.default_rng(0)
    equal = np.repeat([0.7, 1.0, 0.2], [4, 5, 2])
    for limit, kept in ((8, [0, 1, 2, 4, 5, 6, 7, 8]), (7, [0, 1, 4, 5, 6, 7, 8]), (2, [4, 5])):
        for _ in range(9):
            noisy = {"a": equal * (1.0 + 1e-6 * rng.normal(size=N))}
            found = strongest_within(cost, noisy, limit * 2 * (M + K), fill=True)["a"]
            np.testing.assert_array_equal(np.flatnonzero(found), kept)
