"""A budget in a loop of one's own: who looks when, where its state is found, what is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import morph
import regularizers as reg
from morph.budget.amounts import Amount
from regularizers.objective.proximal import ProximalState

M, N, K = 5, 12, 3
PARAMS = {"a": jnp.tile(jnp.arange(1.0, N + 1), (M, 1)), "z": jnp.ones((N, K))}
NOTHING = jax.tree.map(jnp.zeros_like, PARAMS)


def fn(v, x):
    return jnp.tanh(x @ v["a"]) @ v["z"]


GRAPH = reg.trace_channels(fn, PARAMS, jnp.ones((2, M)))
REGULARIZER = reg.NetworkRegularizer(GRAPH, reg.flops(GRAPH), threshold=0.0)


def trained(budget, steps, wrap=lambda tx: tx):
    """Gradients of zero, so that only the budget moves anything."""
    tx = wrap(budget.optimizer(optax.sgd(0.1)))
    update = jax.jit(tx.update)
    params, state = PARAMS, tx.init(PARAMS)
    for step in range(1, steps + 1):
        moves, state = update(NOTHING, state, params)
        params = optax.apply_updates(params, moves)
        state = budget.look(step, params, state)
    return params, state


def strength_in(tree):
    found = jax.tree.leaves(tree, is_leaf=lambda n: isinstance(n, ProximalState))
    return float(next(n for n in found if isinstance(n, ProximalState)).strength)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tx: tx,
        lambda tx: optax.chain(optax.clip(1.0), tx),
        pytest.param(
            lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
            marks=pytest.mark.promotes,  # optax itself
        ),
    ],
    ids=["alone", "in a chain", "accumulated"],
)
def test_a_loop_lands_and_keeps_its_function(wrap):
    budget = morph.Budget(REGULARIZER, "50%", steps=60, every=4, pull="threshold")
    assert repr(budget) == f"Budget({budget.limit:.0f} FLOP, steps=60, pull='threshold')"
    params, state = trained(budget, 60, wrap)
    architecture = budget.finish(params, state)  # warnings are errors
    assert architecture.widths == {"a": N // 2}
    np.testing.assert_array_equal(architecture.groups["a"].parents, range(N // 2, N))
    x = jax.random.normal(jax.random.key(0), (3, M))
    small = morph.compact(fn, architecture)(architecture.take(params), x)
    np.testing.assert_allclose(small, fn(params, x), atol=1e-5)
    np.testing.assert_array_equal(params["a"][:, N // 2 :], PARAMS["a"][:, N // 2 :])


def test_it_looks_at_first_then_every_so_many_steps_and_at_the_end():
    budget, looks = morph.Budget(REGULARIZER, 0.5, steps=11, every=4), []
    state = budget.optimizer(optax.sgd(0.1)).init(PARAMS)
    assert budget.seen is None
    for step in range(12):
        before, given = budget.seen, state
        state = budget.look(jnp.asarray(step) if step % 2 else step, PARAMS, given)
        looks += [step] * (budget.seen is not before)
        assert (state is given) == (budget.seen is before)
    assert looks == [0, 4, 8, 11]
    assert budget.seen.widths == {"a": N // 2}


def test_a_step_that_goes_back_is_a_new_beginning():
    budget = morph.Budget(REGULARIZER, 0.5, steps=100, pull="threshold")
    state = budget.look(70, PARAMS, budget.optimizer(optax.sgd(0.1)).init(PARAMS))
    assert budget.look(1, PARAMS, state) is not state


def test_channels_decay_until_one_cut_and_by_how_weak_they_are():
    budget = morph.Budget(REGULARIZER, "50%", steps=60, every=4, settle=0.4)
    params, state = trained(budget, 35)  # 36 is the step of the cut
    left = np.asarray(params["a"][0] / PARAMS["a"][0])
    assert (left > 0.0).all()
    assert (np.diff(left) > 0.0).all()  # the weakest first
    assert budget.seen.widths == {"a": N}
    params, state = trained(budget, 60)
    assert budget.finish(params, state).widths == {"a": N // 2}
    assert np.count_nonzero(params["a"][0]) == N // 2
    weakest = np.exp(-2.5 * np.asarray([1.0, 1 / 16]))  # of both kernels, of 36 steps
    np.testing.assert_allclose(left[[0, -1]] ** (36 / 35), weakest, rtol=0.2)


def test_gates_do_not_decay_and_other_ways_are_unknown(small):
    _, graph = small
    gated = reg.NetworkRegularizer(graph, reg.flops(graph), "gates", threshold=0.0)
    assert morph.Budget(gated, 0.5, steps=9).pull == "threshold"
    with pytest.raises(ValueError, match="has gates, which are not weights and cannot decay"):
        morph.Budget(gated, 0.5, steps=9, pull="decay")
    with pytest.raises(ValueError, match="pull must be 'decay' or 'threshold'; did you mean"):
        morph.Budget(REGULARIZER, 0.5, steps=9, pull="treshold")


def test_parameters_in_half_precision_do_not_decay():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS)
    tx = morph.Budget(REGULARIZER, 0.5, steps=9).optimizer(optax.sgd(0.1))
    with pytest.raises(ValueError, match="'a' is in bfloat16, in which the small share"):
        tx.init(half)


def test_a_train_state_comes_back_as_one():
    budget = morph.Budget(REGULARIZER, 0.5, steps=10)
    tx = budget.optimizer(optax.sgd(0.1))
    state = TrainState.create(apply_fn=fn, params=PARAMS, tx=tx)
    seen = budget.look(9, state.params, state)
    assert isinstance(seen, TrainState)
    assert strength_in(seen.opt_state) == budget.seen.strength == 0.0
    assert budget.seen.settled
    np.testing.assert_array_equal(seen.opt_state.held["a"], ~budget.seen.keep["a"])


class Own(nnx.Module):
    def __init__(self):
        self.a, self.z = nnx.Param(PARAMS["a"]), nnx.Param(PARAMS["z"])

    def __call__(self, x):
        return jnp.tanh(x @ self.a) @ self.z


def test_an_optimizer_of_nnx_is_changed_in_place():
    model = Own()
    graph = reg.trace_channels(*reg.nnx_function(model), jnp.ones((2, M)))
    budget = morph.Budget(reg.NetworkRegularizer(graph, reg.flops(graph)), 0.5, steps=40, every=4)
    optimizer = nnx.Optimizer(model, budget.optimizer(optax.sgd(0.1)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda own: 0.0 * jnp.sum(own(jnp.ones((2, M)))))(model))

    for i in range(1, 41):
        step(model, optimizer)
        assert budget.look(i, model, optimizer) is optimizer
    assert budget.finish(model, optimizer).widths == {"a": N // 2}
    assert np.count_nonzero(np.asarray(model.a[0])) == N // 2


def test_what_is_decided_stays_on_the_devices_of_the_state():
    budget = morph.Budget(REGULARIZER, 0.5, steps=10)
    state = budget.optimizer(optax.sgd(0.1)).init(PARAMS)
    there = jax.device_put(state, jax.devices()[-1])
    for given in (state, there):
        seen = budget.look(0, PARAMS, given)
        assert jax.tree.map(lambda leaf: (leaf.sharding, leaf.committed), seen) == jax.tree.map(
            lambda leaf: (leaf.sharding, leaf.committed), given
        )
        budget = morph.Budget(REGULARIZER, 0.5, steps=10)


def test_what_would_be_cut_alive_is_told():
    budget = morph.Budget(REGULARIZER, 0.5, steps=60, every=4, pull="threshold")
    state = budget.optimizer(optax.sgd(0.1)).init(PARAMS)
    with pytest.warns(morph.BudgetWarning, match="6 of the channels.*'a'.*there was no look"):
        assert budget.finish(PARAMS, state).widths == {"a": N // 2}
    params, state = trained(budget, 20)
    with pytest.warns(morph.BudgetWarning, match=r"step 42 of 60 on.*last look was at step 17"):
        budget.finish(params, state)


def test_floors_and_rounding_hold():
    given = {"steps": 40, "every": 4}
    budget = morph.Budget(REGULARIZER, 0.8, round_to=4, **given)
    assert budget.finish(*trained(budget, 40)).widths == {"a": 8}
    with pytest.raises(morph.BudgetError, match="cannot meet a budget"):
        morph.Budget(REGULARIZER, 0.5, floors={"a": 7}, **given)
    with pytest.raises(morph.BudgetError, match=r"must be below the present cost of .*: '150%'"):
        morph.Budget(REGULARIZER, "150%", **given)
    assert morph.Budget(REGULARIZER, Amount(99e9), **given).limit == 99e9


def test_a_silent_block_goes_as_a_whole(small):
    variables, graph = small
    (name,) = graph.blocks
    cost = reg.flops(graph)
    regularizer = reg.NetworkRegularizer(graph, cost, "gamma", threshold=0.0, blocks=True)
    budget = morph.Budget(regularizer, 0.04, steps=10)
    silent = graph.mask(variables, {}, [name])
    state = budget.optimizer(optax.sgd(0.1)).init(silent["params"])
    architecture = budget.landed(silent["params"], state.saliency)
    assert [block.name for block in architecture.removed] == [name]
    widths = architecture.widths
    assert cost(widths) <= budget.limit < cost({**widths, "Conv_0": widths["Conv_0"] + 1})


def test_it_refuses_what_holds_no_state_of_its_own():
    budget = morph.Budget(REGULARIZER, 0.5, steps=10)
    state = budget.optimizer(optax.sgd(0.1)).init(PARAMS)
    for given, found in ((optax.sgd(0.1).init(PARAMS), "no state"), ((state, state), "2 states")):
        with pytest.raises(ValueError, match=f"look: found {found} of budget.optimizer"):
            budget.look(0, PARAMS, given)
    with pytest.raises(ValueError, match=r"finish: found no state"):
        budget.finish(PARAMS, ())
    with pytest.raises(ValueError, match="of another network"):
        budget.look(0, PARAMS, state._replace(protected={"a": jnp.zeros(4, bool)}))
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(lambda state: budget.look(0, PARAMS, state))(state)
    with pytest.raises(TypeError, match="step must be a whole number"):
        budget.look("first", PARAMS, state)
    with pytest.raises(TypeError, match="an optax optimizer"):
        budget.optimizer(0.1)
