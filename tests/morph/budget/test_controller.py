"""Budget control: what is kept, how the strength moves, and what is asked in vain."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import regularizers as reg
from morph.budget.controller import Controller, Schedule, check_feasible
from morph.budget.trim import strongest_within
from morph.errors import BudgetError
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


def test_feasibility_names_the_layers_and_the_floor(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost)
    check_feasible(regularizer, 2 * (M + K))
    with pytest.raises(BudgetError, match=r"costs 16 FLOP \(9\.1% of the seed\)") as caught:
        check_feasible(regularizer, 15)
    assert "  a 10 FLOP; fixed: a axis 0 (5): axis of an input\n" in str(caught.value)
    assert "  b 6 FLOP; fixed: b axis 1 (3): axis of an output\n" in str(caught.value)
    assert "floors" not in str(caught.value)
    with pytest.raises(BudgetError, match=r"floors and rounding: 32 FLOP of it\n"):
        check_feasible(regularizer, 47, min_width=2, round_to=3)


def test_feasibility_tells_of_groups_that_stay_whole():
    def fn(v, x):
        return jnp.exp(x @ v["a"]) @ v["b"]  # a dead channel of `a` is not zero

    v = {"a": jnp.ones((M, N)), "b": jnp.ones((N, 2)), "c": jnp.ones((2, K))}
    graph = reg.trace_channels(lambda v, x: fn(v, x) @ v["c"], v, jnp.ones((1, M)))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    with pytest.raises(BudgetError, match=r"a stays at 11: .*not zero"):
        check_feasible(regularizer, 1)


def test_schedule_falls_geometrically_and_stays():
    schedule = Schedule(budget_ratio=0.25, start=10, end=30)
    assert [schedule(step) for step in (0, 10, 20, 30, 99)] == [1.0, 1.0, 0.5, 0.25, 0.25]


def test_what_goes_is_gone_by_the_next_look_and_what_stays_is_not_touched(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost, threshold=0.0)
    schedule = Schedule(budget_ratio=0.5, start=0, end=100)
    controller = Controller(regularizer=regularizer, schedule=schedule, every=7)
    params = {"a": jnp.tile(jnp.arange(1.0, N + 1), (M, 1)), "b": jnp.ones((N, K))}
    tx = reg.proximal(optax.sgd(0.1), regularizer, 0.0)
    state, nothing = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    look = controller.look(50, jax.device_get(regularizer.strengths(params)))
    assert look.cost_ratio == 1.0
    assert not look.settled
    assert cost({"a": look.keep["a"].sum()}) <= schedule(50) * cost()
    state, before = look.obeyed(state), params
    for _ in range(7):
        assert state.strength == pytest.approx(look.strength)
        updates, state = tx.update(nothing, state, params)
        params = optax.apply_updates(params, updates)
    alive = np.asarray(regularizer.strengths(params)["a"]) > 0
    np.testing.assert_array_equal(alive, look.keep["a"])
    np.testing.assert_array_equal(params["a"][:, alive], before["a"][:, alive])
    there = controller.look(100, jax.device_get(regularizer.strengths(params)))
    assert there.settled
    assert there.strength == 0.0
    now = there.obeyed(state)
    np.testing.assert_array_equal(now.protected["a"], there.keep["a"])
    np.testing.assert_array_equal(now.held["a"], ~there.keep["a"])
    assert not look.obeyed(state).held["a"].any()


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
        for i in range(29):
            look = controller.look(10 * i, jax.device_get(measure(params)))
            state = look.obeyed(state)
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


def test_who_does_not_obey_is_told(graph, cost):
    regularizer = reg.NetworkRegularizer(graph, cost, threshold=0.0)
    schedule = Schedule(budget_ratio=0.5, start=0, end=10)
    controller = Controller(regularizer=regularizer, schedule=schedule)
    strengths = {"a": np.ones(N)}  # whatever the strength: nothing is pulled
    for step in range(0, 40, 10):
        controller.look(step, strengths)
    with pytest.raises(BudgetError, match=r"still at 100\.0%.*channels of 'a'.*Budget\.optimizer"):
        controller.look(40, strengths)
    with pytest.raises(BudgetError, match=r"strengths of 'a' are not finite at step 3"):
        controller.look(3, {"a": np.full(N, np.nan)})
