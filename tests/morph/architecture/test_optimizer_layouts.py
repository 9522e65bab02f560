import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import morph
import regularizers as reg
from morph.architecture.optimizer_layouts import BY_BLOCK, BY_GROUP
from regularizers.objective.proximal import ProximalState
from regularizers.objective.pulling import Owed


class Net(nn.Module):
    """Three dense layers; the first two may shrink."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Dense(16)(x))
        x = nn.relu(nn.Dense(11)(x))
        return nn.Dense(3)(x)


MODEL, X = Net(), jax.random.normal(jax.random.key(0), (4, 5))
ALIVE = {"Dense_0": np.arange(16) % 3 != 1, "Dense_1": np.arange(11) % 4 != 1}


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "vector", params)


def is_matrix(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


# Optimizers that treat every number by itself: dead channels do not matter to the others.
ELEMENTWISE = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(0.01),
    "adamw": optax.adamw(0.01),
    "amsgrad": optax.amsgrad(0.01),
    "nadam": optax.nadam(0.01),
    "radam": optax.radam(0.01),
    "adabelief": optax.adabelief(0.01),
    "adadelta": optax.adadelta(0.1),
    "adagrad": optax.adagrad(0.1),
    "adamax": optax.adamax(0.01),
    "adan": optax.adan(0.01),
    "rmsprop": optax.rmsprop(0.01, momentum=0.9, centered=True),
    "rprop": optax.rprop(0.01),
    "lion": optax.lion(0.01),
    "sign": optax.sign_sgd(0.1),
    "optimistic": optax.optimistic_gradient_descent(0.1),
    "accumulated": optax.MultiSteps(optax.adam(0.01), 2),
    "masked": optax.masked(optax.adam(0.01), is_matrix),
    "partition": optax.partition(
        {"matrix": optax.adam(0.01), "vector": optax.sgd(0.1, momentum=0.9)}, by_rank
    ),
    "hyperparameters": optax.inject_hyperparams(optax.adamw)(learning_rate=0.01),
    "chain": optax.chain(
        optax.clip_by_global_norm(0.5),  # dead channels have no gradient, so the norm is the same
        optax.add_decayed_weights(1e-3),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(optax.cosine_decay_schedule(0.1, 10)),
    ),
    "averaged": optax.chain(optax.adam(0.01), optax.ema(0.9)),
    "finite": optax.apply_if_finite(optax.adam(0.01), 3),
    "schedule_free": contrib.schedule_free_adamw(0.01),
    "ademamix": contrib.ademamix(0.01),
    "adopt": contrib.adopt(0.01),
    "madgrad": contrib.madgrad(0.01),
}
# Optimizers that mix the numbers of an array, or are given more than gradients: layout only.
MIXING = {
    "lamb": optax.lamb(0.01),
    "lars": optax.lars(0.01),
    "novograd": optax.novograd(0.01),
    "fromage": optax.fromage(0.01),
    "noisy": optax.noisy_sgd(0.01, key=jax.random.key(0)),
    "sm3": optax.sm3(0.01),
    "yogi": optax.yogi(0.01),  # its moments start above zero, which moves dead channels, too
    "lbfgs": optax.lbfgs(0.1, linesearch=None),
    "adafactor": optax.adafactor(0.01),
    "factored": optax.adafactor(0.01, min_dim_size_to_factor=3, momentum=0.9),
    "muon": contrib.muon(0.01),
    "sophia": contrib.sophia(0.01),
    "dog": contrib.dog(),
    "dadapt": contrib.dadapt_adamw(),
    "prodigy": contrib.prodigy(),
    "cocob": contrib.cocob(),
    "mechanize": contrib.mechanize(optax.adam(0.01)),
    "sam": contrib.sam(optax.sgd(0.1), optax.sgd(0.1)),
    "plateau": optax.chain(optax.adam(0.01), contrib.reduce_on_plateau()),
}


@pytest.fixture(scope="module")
def shrunk():
    """Masked parameters, the architecture without the dead channels, and the small loss."""
    variables = jax.jit(MODEL.init)(jax.random.key(1), X)
    graph = reg.trace_channels(MODEL.apply, variables, X)
    arch = morph.shrink(graph, ALIVE)
    return graph.mask(variables, ALIVE)["params"], arch, loss_of(morph.compact(MODEL.apply, arch))


@functools.partial(jax.jit, static_argnums=0)
def slopes_of(loss, params):
    return jax.grad(loss)(params)


@functools.partial(jax.jit, static_argnums=0)
def update(tx, slopes, params, state):
    updates, state = tx.update(slopes, state, params)
    return optax.apply_updates(params, updates), state


def steps(tx, loss, params, state, n):
    for _ in range(n):
        params, state = update(tx, slopes_of(loss, params), params, state)
    return params, state


def loss_of(fn):
    return lambda params: jnp.sum(jnp.tanh(fn({"params": params}, X)) ** 2)


LOSS = loss_of(MODEL.apply)


def assert_same_layout(taken, fresh):
    assert jax.tree.structure(taken) == jax.tree.structure(fresh)
    for one, other in zip(jax.tree.leaves(taken), jax.tree.leaves(fresh), strict=True):
        assert (jnp.shape(one), jnp.result_type(one)) == (jnp.shape(other), jnp.result_type(other))


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.promotes
def test_training_goes_on_where_it_was(name, shrunk):
    tx, (params, arch, small_loss) = ELEMENTWISE[name], shrunk
    params, state = steps(tx, LOSS, params, tx.init(params), 3)
    small, small_state = arch.take(params), arch.take(state)
    assert_same_layout(small_state, tx.init(small))
    dense, dense_state = steps(tx, LOSS, params, state, 2)
    small, small_state = steps(tx, small_loss, small, small_state, 2)
    expected = arch.take({"params": dense, "state": dense_state})
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        {"params": small, "state": plain(small_state)},
        {"params": expected["params"], "state": plain(expected["state"])},
    )


def plain(tree):
    """Random keys as numbers."""
    is_key = lambda a: jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, tree)


@pytest.mark.parametrize("name", MIXING)
def test_states_are_laid_out_as_the_optimizer_would(name, shrunk):
    tx, (params, arch, _) = MIXING[name], shrunk
    assert_same_layout(arch.take(tx.init(params)), tx.init(arch.take(params)))


def test_lookahead(shrunk):
    tx, (params, arch, _) = optax.lookahead(optax.adam(0.01), 2, 0.5), shrunk
    pair = optax.LookaheadParams.init_synced(params)
    taken = arch.take({"params": pair, "state": tx.init(pair)})
    assert_same_layout(taken["state"], tx.init(taken["params"]))
    jax.tree.map(np.testing.assert_array_equal, taken["params"].slow, arch.take(params))


def test_abstract_states(shrunk):
    params, arch, _ = shrunk
    for tx in (*ELEMENTWISE.values(), MIXING["factored"], MIXING["sm3"], MIXING["lbfgs"]):
        state = jax.eval_shape(tx.init, params)
        assert_same_layout(arch.take(state), jax.eval_shape(tx.init, arch.take(params)))


def test_a_vector_per_axis_is_sliced_along_its_axis(shrunk):
    tx, (params, arch, _) = optax.sm3(0.1), shrunk
    _, state = steps(tx, LOSS, params, tx.init(params), 1)
    rows, columns = state[0].mu["Dense_1"]["kernel"]
    small_rows, small_columns = arch.take(state)[0].mu["Dense_1"]["kernel"]
    np.testing.assert_array_equal(small_rows, rows[ALIVE["Dense_0"]])
    np.testing.assert_array_equal(small_columns, columns[ALIVE["Dense_1"]])


def test_a_history_is_sliced_entry_by_entry(shrunk):
    tx, (params, arch, _) = optax.lbfgs(0.1, linesearch=None), shrunk
    _, state = steps(tx, LOSS, params, tx.init(params), 2)
    history = state[0].diff_params_memory["Dense_1"]["kernel"]
    taken = arch.take(state)[0].diff_params_memory["Dense_1"]["kernel"]
    expected = history[:, ALIVE["Dense_0"]][:, :, ALIVE["Dense_1"]]
    np.testing.assert_array_equal(taken, expected)
    assert np.any(expected)


def factored_network(*shape):
    """A chain of matrices of these widths as a function, and its parameters by name."""
    rng = np.random.default_rng(0)
    pairs = itertools.pairwise(shape)
    params = {
        f"w{i}": jax.device_put(rng.normal(size=s).astype(np.float32)) for i, s in enumerate(pairs)
    }

    def fn(params, x):
        for i in range(len(params)):
            x = jnp.tanh(x @ params[f"w{i}"])
        return x

    return fn, params, jax.device_put(rng.normal(size=(4, shape[0])).astype(np.float32))


def shrink_to(fn, params, x, **widths):
    graph = reg.trace_channels(fn, params, x)
    return morph.shrink(graph, {n: np.arange(graph.widths[n]) < w for n, w in widths.items()})


@pytest.mark.parametrize(
    "widths",
    [(9, 7), (9, 5), (6, 7), (5, 9)],
    ids=["shrunk", "longer", "same order", "turned around"],
)
def test_adafactor_means_follow_their_axes(widths):
    # w1 is [9, 9] or [9, x]: which of its axes v_row leaves out depends on which is longer.
    fn, params, x = factored_network(4, 9, 9, 3)
    tx = optax.adafactor(0.01, min_dim_size_to_factor=3)
    _, state = steps(tx, lambda p: jnp.sum(fn(p, x) ** 2), params, tx.init(params), 2)
    arch = shrink_to(fn, params, x, w0=widths[0], w1=widths[1])
    taken = arch.take(state)
    assert_same_layout(taken, tx.init(arch.take(params)))
    # v_row leaves out the longest axis, the last of equals; the seed's v_row leaves out axis 1.
    by_axis = {1: state[0].v_row["w1"][: widths[0]], 0: state[0].v_col["w1"][: widths[1]]}
    longest = 0 if widths[0] > widths[1] else 1
    np.testing.assert_array_equal(taken[0].v_row["w1"], by_axis[longest])
    np.testing.assert_array_equal(taken[0].v_col["w1"], by_axis[1 - longest])


def test_adafactor_that_may_stop_factoring_is_an_error():
    # The shortest factored axis was 6: whether 5 would still be factored nobody can tell.
    fn, params, x = factored_network(6, 9, 9, 6)
    state = optax.adafactor(0.01, min_dim_size_to_factor=3).init(params)
    arch = shrink_to(fn, params, x, w0=5)
    with pytest.raises(morph.ArchitectureError, match=r"v_row/w0.*\[6, 9\].*\[6, 5\].*start again"):
        arch.take(state)


def test_adafactor_that_may_start_factoring_is_an_error():
    fn, params, x = factored_network(4, 9, 9, 3)
    state = optax.adafactor(0.01, min_dim_size_to_factor=10).init(params)
    graph = reg.trace_channels(fn, params, x)
    seed = morph.Architecture.of_seed(graph)
    twice = seed.with_parents({name: [*range(9), *range(9)] for name in graph.groups})
    with pytest.raises(
        morph.ArchitectureError, match=r"v_row/w1.*\[9, 9\].*\[18, 18\].*start again"
    ):
        twice.take(state)


def test_adafactor_over_other_axes_is_an_error():
    # Of [3, 4, 9] the last two are factored, of [3, 2, 9] the first and the last.
    weights = {"a": jnp.ones((5, 4)), "b": jnp.ones((3, 4, 9)), "c": jnp.ones((9, 2))}

    def fn(params, x):
        return jnp.einsum("bc,kcd->bkd", jnp.tanh(x @ params["a"]), params["b"]) @ params["c"]

    graph = reg.trace_channels(fn, weights, jnp.ones((2, 5)))
    arch = morph.shrink(graph, {"a": np.arange(4) < 2})
    state = optax.adafactor(0.01, min_dim_size_to_factor=1).init(weights)
    with pytest.raises(morph.ArchitectureError, match=r"v_row/b.*\[3, 4, 9\].*\[3, 2, 9\]"):
        arch.take(state)


def test_a_leaf_of_another_shape_is_named(shrunk):
    params, arch, _ = shrunk
    state = {"mu": jax.tree.map(lambda p: jnp.zeros((2, *p.shape[:-1])), params)}
    with pytest.raises(morph.ArchitectureError, match=r"'mu/Dense_0/bias' has shape \[2\]"):
        arch.take(state)


def test_galore_is_an_error(shrunk):
    params, arch, _ = shrunk
    state = contrib.galore(0.01, rank=4).init(params)
    with pytest.raises(morph.ArchitectureError, match=r"tx\.init"):
        arch.take(state)


@pytest.mark.promotes
def test_the_proximal_state_is_sliced_by_group(shrunk):
    params, arch, small_loss = shrunk
    tx = proximal_of(MODEL.apply, params)
    params, state = steps(tx, LOSS, params, tx.init(params), 2)
    state = state._replace(
        protected={n: jnp.asarray(np.arange(w) % 2 == 0) for n, w in arch.seed_widths.items()}
    )
    small, taken = arch.take(params), arch.take(state)
    fresh = proximal_of(morph.compact(MODEL.apply, arch), small)
    assert_same_layout(taken, fresh.init(small))
    for name, alive in ALIVE.items():
        for field in ("protected", "held", "saliency"):
            whole = np.asarray(getattr(state, field)[name])
            np.testing.assert_array_equal(getattr(taken, field)[name], whole[alive])
    assert np.any(taken.saliency["Dense_0"])
    steps(fresh, small_loss, small, taken, 1)


@pytest.mark.promotes
def test_what_is_owed_to_half_precision_is_sliced_too(shrunk):
    params, arch, _ = shrunk
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params)
    tx = proximal_of(MODEL.apply, params)
    _, state = tx.update(jax.tree.map(jnp.zeros_like, half), tx.init(half), half)
    taken = arch.take(state).owed.channels
    for name, alive in ALIVE.items():
        np.testing.assert_array_equal(taken[name], state.owed.channels[name][alive])


def proximal_of(fn, params):
    graph = reg.trace_channels(fn, {"params": params}, X)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    return reg.proximal(optax.adam(0.01), regularizer, 0.01)


def test_names_are_those_of_the_proximal_state():
    assert {"protected", "held", "saliency"} == set(BY_GROUP) & set(ProximalState._fields)
    assert (*BY_GROUP[-1:], BY_BLOCK) == Owed._fields
