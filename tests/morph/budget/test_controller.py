"""Budget control: what is kept, how the strength moves, and what is asked in vain."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import regularizers as reg
from morph.budget.amounts import floors_of, parse_budget
from morph.budget.controller import Controller, Schedule, check_feasible
from morph.budget.trim import _Cuts, allowed_widths, strongest_within
from morph.errors import BudgetError
from regularizers.costs.cost import Cost, Line
from regularizers.named import cost_named

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


def test_feasibility_names_the_layers_and_the_floor(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost)
    check_feasible(regularizer, 2 * (M + K))
    with pytest.raises(BudgetError, match=r"costs 16 FLOP \(9\.1% of the seed\)") as caught:
        check_feasible(regularizer, 15)
    assert "  a 10 FLOP; fixed: a axis 0 (5): axis of an input\n" in str(caught.value)
    assert "  b 6 FLOP; fixed: b axis 1 (3): axis of an output\n" in str(caught.value)
    assert "least widths" not in str(caught.value)
    with pytest.raises(BudgetError, match=r"least widths and rounding: 32 FLOP of it\n"):
        check_feasible(regularizer, 47, min_width=2, round_to=3)


def test_feasibility_tells_of_groups_that_stay_whole():
    def fn(v, x):
        return jnp.exp(x @ v["a"]) @ v["b"]  # a dead channel of `a` is not zero

    v = {"a": jnp.ones((M, N)), "b": jnp.ones((N, 2)), "c": jnp.ones((2, K))}
    graph = reg.trace_channels(lambda v, x: fn(v, x) @ v["c"], v, jnp.ones((1, M)))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    with pytest.raises(BudgetError, match=r"a stays at 11: .*not zero"):
        check_feasible(regularizer, 1)


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


class Small(nn.Module):
    """A stem, a residual block with norms, a dense layer without."""

    @nn.compact
    def __call__(self, x):
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        x = nn.relu(norm()(nn.Conv(24, (3, 3), use_bias=False)(x)))
        y = nn.relu(norm()(nn.Conv(40, (3, 3), use_bias=False)(x)))
        x = nn.relu(x + norm()(nn.Conv(24, (3, 3), use_bias=False)(y)))
        return nn.Dense(3)(nn.relu(nn.Dense(56)(x.mean((1, 2)))))


@pytest.fixture(scope="module")
def small():
    model, x = Small(), jnp.zeros((1, 8, 8, 5))
    variables = model.init(jax.random.key(0), x)
    return variables, reg.trace_channels(model.apply, variables, x)


@pytest.mark.parametrize("target", ["flops", "activation_peak"])
def test_the_cost_follows_the_schedule_down_to_the_budget(small, target):
    """The real proximal step, with noise for a task: a walk down to each budget."""
    variables, graph = small
    cost = cost_named(graph, target)
    regularizer = reg.NetworkRegularizer(graph, cost, "group_lasso", threshold=0.0)
    tx = reg.proximal(optax.sgd(1.0), regularizer, 0.0)
    measure = jax.jit(regularizer.strengths)

    @jax.jit
    def ten_steps(params, state, key):
        def one(carry, key):
            params, state = carry
            noise = jax.tree.map(
                lambda p: 0.02 * p * jax.random.normal(key, p.shape), params
            )  # what is zero stays zero
            updates, state = tx.update(noise, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(one, (params, state), jax.random.split(key, 10))[0]

    for budget in (0.75, 0.5, 0.25, 0.1):
        params, state = variables["params"], tx.init(variables["params"])
        schedule = Schedule(budget_ratio=budget, start=10, end=200)
        controller = Controller(regularizer=regularizer, schedule=schedule)
        try:
            check_feasible(regularizer, budget * cost.seed)
        except BudgetError:
            assert (target, budget) == ("activation_peak", 0.1)
            continue
        strength = controller.initial_strength(jax.device_get(measure(params)))
        for i in range(29):
            look = controller.look(10 * i, jax.device_get(measure(params)), strength)
            strength, state = look.strength, look.obeyed(state)
            # Nine tenths of the schedule, or one channel of the coarsest group below it.
            widths = {n: max(1, int((s > 0).sum())) for n, s in measure(params).items()}
            more = max(cost({**widths, n: w + 1}) for n, w in widths.items()) / cost.seed
            least = min(0.9 * look.target_ratio, look.target_ratio - more + look.cost_ratio)
            assert look.cost_ratio >= least, f"step {10 * i} to {budget}"
            if i < 28:
                params, state = ten_steps(params, state, jax.random.key(i))
        assert look.settled
        assert look.cost_ratio <= budget
        worth = regularizer.worth(measure(params))
        keep = strongest_within(cost, worth, budget * cost.seed, fill=True)
        widths = {name: int(k.sum()) for name, k in keep.items()}
        landed = cost(widths)
        coarsest = max(cost({**widths, name: w + 1}) for name, w in widths.items()) - landed
        assert landed <= budget * cost.seed
        assert landed >= budget * cost.seed - max(0.01 * budget * cost.seed, coarsest)


def test_a_strength_that_runs_away_is_stopped(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost, threshold=0.0)
    schedule = Schedule(budget_ratio=0.5, start=0, end=10)
    controller = Controller(regularizer=regularizer, schedule=schedule)
    strengths = {"a": np.ones(N)}  # whatever the strength: nothing is pulled
    strength = controller.initial_strength(strengths)

    def looks():
        now = strength
        for step in range(0, 1000, 10):
            now = controller.look(step, strengths, now).strength

    with pytest.raises(BudgetError, match=r"run away: .* still at 100\.0%.*reg.proximal"):
        looks()
    with pytest.raises(BudgetError, match=r"strengths of 'a' are not finite at step 3"):
        controller.look(3, {"a": np.full(N, np.nan)}, 1.0)


@pytest.mark.parametrize(
    ("said", "target", "amount"),
    [
        (0.5, "flops", 0.5 * 176),
        ("0.5", "flops", 0.5 * 176),
        ("50%", "flops", 0.5 * 176),
        ("120FLOP", "flops", 120),
        ("0.12 kFLOPs", "flops", 120),
        ("1.5Mflop", "flops", 1.5e6),
        ("88 parameters", "size", 88),
        ("1.2M parameters", "size", 1.2e6),
        ("300KB", "activation_bytes", 3e5),
        ("300kB", "activation_bytes", 3e5),
        ("2MiB", "activation_bytes", 2.0**21),
        ("2ms", "V100", 2e-3),
        ("150us", "V100", 150e-6),
        ("150 µs", "V100", 150e-6),
        ("3mJ", "energy", 3e-3),
        ("1e-3 J", "energy", 1e-3),
    ],
)
def test_budgets_are_parsed(graph, said, target, amount):
    if target == "flops":
        assert cost_named(graph, target).seed == 2 * (M + K) * N == 176
    assert parse_budget(said, cost_named(graph, target)) == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize(
    ("said", "target", "message"),
    [
        ("2ms", "flops", r"asked for 'ms', and flops is counted in FLOP .*120MFLOP"),
        ("120mFLOP", "flops", r"m is milli; a million is M"),
        ("2Ms", "V100", r"M is a million; milli is m"),
        ("300KB", "size", r"counted in parameters \(the seed's is 88 parameters\)"),
        ("300kb", "activation_bytes", r"bytes are B"),
        ("2KiFLOP", "flops", r"'Ki' is no prefix of FLOP"),
        ("half", "flops", r"'half' is no amount; give a ratio .*0\.5 or 50%"),
        ("0", "flops", r"must be above zero, found '0'"),
        (-0.5, "flops", r"must be above zero"),
        (float("nan"), "flops", r"nan is no amount"),
        ("3mJ", "0.5*flops+0.5*size", r"counted in x seed"),
    ],
)
def test_budgets_that_are_none(graph, said, target, message):
    with pytest.raises(BudgetError, match=message):
        parse_budget(said, cost_named(graph, target))


def test_floors_by_pattern(small):
    _, graph = small
    floors = floors_of(graph, 2, {"Conv_1": 9, "Conv_*": 99})
    assert floors == {"Conv_0": 24, "Conv_1": 9, "Dense_1": 2}
    with pytest.raises(ValueError, match=r"floors: 'Conv_9' matches no .*did you mean 'Conv_2'"):
        floors_of(graph, 1, {"Conv_9": 2})
    with pytest.raises(ValueError, match="must be at least 1, found 0 for 'Conv_1'"):
        floors_of(graph, 1, {"Conv_1": 0})
