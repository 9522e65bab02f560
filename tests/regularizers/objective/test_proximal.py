import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

import morph
import regularizers as reg

OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.05),
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.01),
}


class ConvNet(nn.Module):
    """conv-BN-relu, conv-BN-relu, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        for i, features in enumerate((11, 7)):
            x = nn.Conv(features, (3, 3), use_bias=False, name=f"conv_{i}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name=f"norm_{i}")(x))
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


MODEL = ConvNet()
APPLY = jax.jit(MODEL.apply)
X = jax.random.normal(jax.random.key(1), (8, 5, 6, 3))
LABELS = jnp.arange(8) % 3


@pytest.fixture(scope="module")
def variables():
    return jax.jit(MODEL.init)(jax.random.key(0), X)


@pytest.fixture(scope="module")
def graph(variables):
    return reg.trace_channels(MODEL.apply, variables, X)


def regularizer_of(graph, penalty="gamma"):
    return reg.NetworkRegularizer(graph, reg.flops(graph), penalty, threshold=0.0)


def mover(tx):
    """The first state, and a step: `(gradient, state, params) -> (params, state)`, compiled."""

    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(tx.init), jax.jit(step)


def train(tx, variables, steps):
    """Trains on one batch; yields (params, optimizer state) after each step."""

    @jax.jit
    def step(params, stats, state):
        def loss_fn(params):
            logits, updated = MODEL.apply(
                {"params": params, "batch_stats": stats}, X, train=True, mutable=["batch_stats"]
            )
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()
            return loss, updated["batch_stats"]

        gradient, stats = jax.grad(loss_fn, has_aux=True)(params)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), stats, state

    params, stats = variables["params"], variables["batch_stats"]
    state = tx.init(params)
    for _ in range(steps):
        params, stats, state = step(params, stats, state)
        yield {"params": params, "batch_stats": stats}, state


def bits(x):
    return np.asarray(x).view(np.uint32)


def test_gamma_makes_scale_and_shift_exactly_zero(graph, variables):
    scale = jnp.linspace(0.1, 1.1, 11)
    params = jax.tree.map(lambda p: p, variables["params"])
    params["norm_0"] = {"scale": scale, "bias": -jnp.ones(11)}
    regularizer = regularizer_of(graph)
    marginal = regularizer.marginal_costs(regularizer.strengths(params))["conv_0"]
    init, move = mover(reg.proximal(optax.sgd(0.0), regularizer, strength=0.55 / marginal))
    pulled, _ = move(jax.tree.map(np.zeros_like, params), init(params), params)
    np.testing.assert_array_equal(bits(pulled["norm_0"]["scale"][:5]), 0)  # +0.0, not -0.0
    np.testing.assert_array_equal(bits(pulled["norm_0"]["bias"][:5]), 0)
    np.testing.assert_allclose(pulled["norm_0"]["scale"][5:], scale[5:] - 0.55, rtol=1e-5)
    # The shift keeps its ratio to the scale; the kernel is not touched by gamma.
    np.testing.assert_allclose(
        pulled["norm_0"]["bias"][5:], -(scale[5:] - 0.55) / scale[5:], rtol=1e-5
    )
    np.testing.assert_array_equal(pulled["conv_0"]["kernel"], params["conv_0"]["kernel"])


def test_group_lasso_makes_all_producers_exactly_zero(graph, variables):
    params = jax.tree.map(lambda p: p, variables["params"])
    factor = jnp.linspace(0.1, 1.1, 11)
    params["conv_0"] = {"kernel": jnp.tile(factor, (3, 3, 3, 1))}
    params["norm_0"] = {"scale": -0.5 * factor, "bias": 0.25 * factor}  # weaker: the kernel counts
    regularizer = regularizer_of(graph, "group_lasso")
    marginal = regularizer.marginal_costs(regularizer.strengths(params))["conv_0"]
    init, move = mover(reg.proximal(optax.sgd(0.0), regularizer, strength=0.55 / marginal))
    pulled, _ = move(jax.tree.map(np.zeros_like, params), init(params), params)
    for leaf in (pulled["conv_0"]["kernel"], pulled["norm_0"]["scale"], pulled["norm_0"]["bias"]):
        np.testing.assert_array_equal(bits(leaf[..., :5]), 0)
    left = (factor[5:] - 0.55) / factor[5:]
    np.testing.assert_allclose(
        pulled["conv_0"]["kernel"][0, 0, 0, 5:], factor[5:] * left, rtol=1e-5
    )
    np.testing.assert_allclose(pulled["norm_0"]["scale"][5:], -0.5 * factor[5:] * left, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::regularizers.errors.DeadGroupWarning")
@pytest.mark.parametrize("penalty", ["gamma", "group_lasso"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.promotes
def test_dead_channels_stay_dead_in_training(graph, variables, optimizer, penalty):
    regularizer = regularizer_of(graph, penalty)
    tx = reg.proximal(OPTIMIZERS[optimizer](), regularizer, strength=0.2)
    strengths = jax.jit(regularizer.strengths)
    before = {name: np.zeros(w, bool) for name, w in graph.widths.items()}
    for trained, state in train(tx, variables, 150):
        now = {name: np.asarray(s) == 0.0 for name, s in strengths(trained).items()}
        for name in now:
            assert np.all(now[name] >= before[name]), f"step {state.steps}: {name} came back"
        before = now
    assert any(d.any() for d in now.values())
    # Shrinking what died changes nothing but rounding.
    alive = regularizer.alive(trained)
    arch = morph.shrink(graph, alive)
    small = jax.jit(morph.compact(MODEL.apply, arch))(arch.take(trained), X)
    np.testing.assert_allclose(small, APPLY(trained, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.promotes
def test_stale_momentum_wakes_nothing(graph, variables, optimizer):
    init, move = mover(reg.proximal(OPTIMIZERS[optimizer](), regularizer_of(graph), strength=0.0))
    params = variables["params"]
    ones = jax.tree.map(np.ones_like, params)
    _, state = move(ones, init(params), params)  # now all momenta are ones
    zeros, alive, awake = np.zeros((3, 11), np.float32)
    alive[:] = 1.0
    alive[[3, 5]] = 0.0
    awake[5] = 1.0
    params = {**params, "norm_0": {"scale": alive, "bias": zeros}}
    moved, _ = move({**ones, "norm_0": {"scale": awake, "bias": zeros}}, state, params)
    moved = jax.device_get(moved)
    assert bits(moved["norm_0"]["scale"][3]) == bits(moved["norm_0"]["bias"][3]) == 0
    # A gradient wakes; what is not zero, or not pulled, moves as ever.
    assert moved["norm_0"]["scale"][5] < 0.0
    assert np.all(moved["norm_0"]["scale"][:3] < 1.0)
    assert np.all(moved["head"]["bias"] < 0.0)


@pytest.mark.filterwarnings("ignore::regularizers.errors.DeadGroupWarning")
def test_protected_channels_are_never_zeroed(graph, variables):
    regularizer = regularizer_of(graph)
    tx = reg.proximal(optax.sgd(0.05, momentum=0.9), regularizer, strength=100.0)
    params = variables["params"]
    init, move = mover(tx)
    state = init(params)
    keep = np.zeros(11, bool)
    keep[[2, 5, 9]] = True
    state = state._replace(protected={**state.protected, "conv_0": jnp.asarray(keep)})
    gradient = jax.tree.map(np.zeros_like, params)
    for _ in range(5):
        params, state = move(gradient, state, params)
        scale = params["norm_0"]["scale"]
        np.testing.assert_array_equal(scale != 0.0, keep)
    # What is left of them is a twentieth of the strongest, not further pulled.
    np.testing.assert_array_equal(params["norm_1"]["scale"], 0.0)


def test_held_channels_stay_zero_whatever_the_gradient(graph, variables):
    regularizer = regularizer_of(graph)
    tx = reg.proximal(optax.sgd(0.05, momentum=0.9), regularizer, strength=0.0)
    params = variables["params"]
    init, move = mover(tx)
    state = init(params)
    held = np.zeros(11, bool)
    held[[2, 5, 9]] = True
    state = state._replace(held={**state.held, "conv_0": jnp.asarray(held)})
    gradient = jax.tree.map(np.ones_like, params)
    for _ in range(3):
        params, state = move(gradient, state, params)
        np.testing.assert_array_equal(params["norm_0"]["scale"] == 0.0, held)
    assert (params["norm_1"]["scale"] != 0.0).all()


@pytest.mark.promotes
def test_strength_may_be_a_schedule(graph, variables):
    regularizer = regularizer_of(graph)
    params = variables["params"]
    gradient = jax.tree.map(np.zeros_like, params)
    marginal = regularizer.marginal_costs(regularizer.strengths(params))
    init, move = mover(reg.proximal(optax.sgd(0.0), regularizer, lambda count: 0.01 * count))
    state = init(params)
    assert (state.strength, state.steps) == (0.0, 0)
    expected = 1.0
    for count in range(3):
        params, state = move(gradient, state, params)
        expected -= 0.01 * count * marginal["conv_0"]
        np.testing.assert_allclose(params["norm_0"]["scale"], expected, rtol=1e-6)
        np.testing.assert_allclose(state.strength, 0.01 * count, rtol=1e-6)
        assert state.steps == count + 1


def test_strength_may_be_set_between_steps_without_compiling_again(graph, variables):
    regularizer = regularizer_of(graph)
    params = variables["params"]
    gradient = jax.tree.map(np.zeros_like, params)
    tx = reg.proximal(optax.sgd(0.0), regularizer, strength=0.0)
    traces = []

    @jax.jit
    def update(gradient, state, params):
        traces.append(None)
        return tx.update(gradient, state, params)

    state = jax.jit(tx.init)(params)
    updates, state = update(gradient, state, params)
    assert all(np.all(u == 0.0) for u in jax.tree.leaves(updates))
    state = state._replace(strength=jnp.float32(0.5))
    updates, state = update(gradient, state, params)
    marginal = regularizer.marginal_costs(regularizer.strengths(params))
    np.testing.assert_allclose(updates["norm_1"]["scale"], -0.5 * marginal["conv_1"], rtol=1e-5)
    assert len(traces) == 1


@pytest.mark.promotes
def test_no_strength_is_the_plain_optimizer(graph, variables):
    plain, wrapped = optax.adam(0.01), reg.proximal(optax.adam(0.01), regularizer_of(graph), 0.0)
    for (a, _), (b, _) in zip(
        train(plain, variables, 3), train(wrapped, variables, 3), strict=True
    ):
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-5, atol=1e-6), a, b)


def test_passes_extra_arguments_to_the_optimizer(graph, variables):
    seen = []

    def update(updates, state, params=None, *, value, **extra):
        seen.append((value, extra))
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = reg.proximal(inner, regularizer_of(graph))
    params = variables["params"]
    tx.update(params, tx.init(params), params, value=3.0, other=4.0)
    assert seen
    assert all(one == (3.0, {"other": 4.0}) for one in seen)


def test_parameters_are_needed(graph, variables):
    tx = reg.proximal(optax.sgd(0.1), regularizer_of(graph))
    params = variables["params"]
    with pytest.raises(ValueError, match=r"call update\(grads, state, params\)"):
        tx.update(params, tx.init(params))


def test_parameters_that_do_not_fit_are_refused(graph, variables):
    tx = reg.proximal(optax.sgd(0.1), regularizer_of(graph))
    params = {name: p for name, p in variables["params"].items() if name != "norm_0"}
    with pytest.raises(ValueError, match="'params/norm_0/scale' is missing"):
        tx.update(params, tx.init(params), params)


@pytest.mark.parametrize("penalty", ["gamma", "group_lasso"])
def test_saliency_is_the_square_of_the_slope_along_each_channel(graph, variables, penalty):
    regularizer = regularizer_of(graph, penalty)
    params = jax.tree.map(
        lambda leaf: (
            leaf
            + np.float32(0.1) * np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape)
        ),
        jax.device_get(variables["params"]),
    )

    def loss(params):
        logits, _ = MODEL.apply(
            {**variables, "params": params}, X, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    tx = reg.proximal(optax.sgd(0.1), regularizer, 0.0)
    init, move = mover(tx)
    state = init(params)
    assert not any(s.any() for s in state.saliency.values())
    gradient = jax.jit(jax.grad(loss))(params)
    _, once = move(gradient, state, params)
    _, twice = move(gradient, once, params)
    slope = jax.jit(lambda along: jax.jvp(loss, (params,), (along,))[1])
    for name, width in (("conv_0", 11), ("conv_1", 7)):
        i = name[-1]
        pulled = {f"norm_{i}": ("scale", "bias")}
        if penalty == "group_lasso":
            pulled[name] = ("kernel",)
        slopes = []
        for c in range(width):  # the derivative along all that is pulled with the channel
            along = jax.tree.map(np.zeros_like, params)
            for module, leaves in pulled.items():
                for leaf in leaves:
                    own = params[module][leaf]
                    along[module][leaf] = np.where(np.arange(width) == c, own, np.float32(0.0))
            slopes.append(slope(along))
        square = np.square(np.asarray(slopes))
        np.testing.assert_allclose(once.saliency[name], 0.03 * square, rtol=1e-4, atol=1e-10)
        share = 1.0 - 0.97**2
        np.testing.assert_allclose(twice.saliency[name], share * square, rtol=1e-4, atol=1e-10)


def test_params_of_numpys_own_width_are_pulled_as_jax_takes_them():
    params = {"a": np.ones((5, 7)), "b": np.ones((7, 3))}  # float64
    graph = reg.trace_channels(lambda v, x: nn.relu(x @ v["a"]) @ v["b"], params, np.ones((2, 5)))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    found = regularizer.shrink_step(params, 0.1)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    marginal = 2 * 2 * (5 + 3) / reg.flops(graph)()  # 2 per product, 2 rows
    np.testing.assert_allclose(found["a"], 1.0 - 0.1 * marginal, rtol=1e-6)
