import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import morph
import regularizers as reg


class LinenNet(nn.Module):
    """conv-BN-relu, flatten, dense-relu, dropout, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(6, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.relu(nn.Dense(7, name="hidden")(x.reshape((x.shape[0], -1))))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="head")(x)


class NNXNet(nnx.Module):
    """The same."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 6, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.hidden = nnx.Linear(4 * 5 * 6, 7, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.relu(self.hidden(x.reshape((x.shape[0], -1))))
        return self.head(self.dropout(x))


X = jax.random.normal(jax.random.key(1), (3, 4, 5, 2))


@pytest.fixture(scope="module")
def pair():
    """The Linen function and the NNX function, and variables that fit both."""
    model = LinenNet()
    variables = jax.jit(model.init)(jax.random.key(0), X)
    fn, state = reg.nnx_function(NNXNet(nnx.Rngs(0)))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, variables)
    return model.apply, fn, variables


def test_variables_have_the_layout_of_linen(pair):
    _, fn, variables = pair
    _, state = reg.nnx_function(NNXNet(nnx.Rngs(0)))
    assert jax.tree.structure(state) == jax.tree.structure(variables)
    assert set(state) == {"params", "batch_stats"}  # random streams are no variables
    del fn


def test_equivalent_networks_have_the_same_groups_and_costs(pair):
    linen, fn, variables = pair
    ours, theirs = (reg.trace_channels(f, variables, X) for f in (fn, linen))
    assert ours.groups == theirs.groups
    assert list(ours.groups) == ["conv", "hidden"]
    assert ours.variables == theirs.variables
    assert list(reg.flops(ours).table()) == list(reg.flops(theirs).table())
    assert reg.model_size(ours)() == reg.model_size(theirs)()


def test_equivalent_networks_compute_the_same(pair):
    linen, fn, variables = pair
    np.testing.assert_allclose(fn(variables, X), linen(variables, X), rtol=1e-6)


def test_compact_function_equals_the_masked_one(pair):
    _, fn, variables = pair
    graph = reg.trace_channels(fn, variables, X)
    alive = {"conv": np.arange(6) % 3 > 0, "hidden": np.arange(7) % 2 == 0}
    masked = graph.mask(variables, alive)
    arch = morph.shrink(graph, alive)
    small = morph.compact(fn, arch)(arch.take(masked), X)
    np.testing.assert_allclose(small, fn(masked, X), rtol=1e-5, atol=1e-6)


def test_train_mode_updates_the_statistics_that_are_mutable(pair):
    linen, fn, variables = pair
    key = jax.random.key(2)
    output, updated = fn(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    assert set(updated) == {"batch_stats"}
    _, expected = linen(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updated, expected)
    assert output.shape == (3, 3)
    again = fn(variables, X, train=True, rngs={"dropout": key})
    np.testing.assert_array_equal(again, output)


def test_evaluation_changes_nothing(pair):
    _, fn, variables = pair
    _, updated = fn(variables, X, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])
    assert fn(variables, X, mutable=["cache"])[1] == {}


@pytest.mark.parametrize("streams", [{"default": 0}, {"params": 0, "dropout": 1}])
def test_rngs_seed_the_streams(streams):
    fn, variables = reg.nnx_function(NNXNet(nnx.Rngs(**streams)))
    one, two = jax.random.split(jax.random.key(3), 2)

    def outputs(**rngs):
        return np.asarray(fn(variables, X, train=True, rngs=rngs))

    assert np.any(outputs(dropout=one) != outputs(dropout=two))
    np.testing.assert_array_equal(outputs(dropout=one), outputs(dropout=one))
    # A name that the model does not have is ignored, except that the default stream serves all.
    np.testing.assert_array_equal(outputs(dropout=one, noise=two), outputs(dropout=one))
    # Without rngs the streams start where the model's own stand: calls are pure.
    np.testing.assert_array_equal(outputs(), outputs())


def test_a_model_without_streams_takes_any_rngs():
    fn, variables = reg.nnx_function(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    x = jnp.ones((1, 2))
    rngs = {"dropout": jax.random.key(0)}
    np.testing.assert_array_equal(fn(variables, x, train=True, rngs=rngs), fn(variables, x))


def test_the_model_itself_is_not_changed():
    model = NNXNet(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.split(model, nnx.RngState, ...)[2])
    fn, variables = reg.nnx_function(model)
    fn(jax.tree.map(jnp.ones_like, variables), X, train=True)
    after = nnx.split(model, nnx.RngState, ...)[2]
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, after))


def test_works_under_jit_and_grad(pair):
    linen, fn, variables = pair
    ours, theirs = (jax.jit(jax.grad(lambda v, f=f: f(v, X).sum())) for f in (fn, linen))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ours(variables)["params"],
        theirs(variables)["params"],
    )


def test_keyword_arguments_reach_the_model():
    class Scaled(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x, scale):
            return scale * self.dense(x)

    fn, variables = reg.nnx_function(Scaled(nnx.Rngs(0)))
    x = jnp.ones((1, 2))
    np.testing.assert_allclose(fn(variables, x, scale=3.0), 3.0 * fn(variables, x, scale=1.0))


def test_abstract_models_can_be_traced():
    model = nnx.eval_shape(lambda: NNXNet(nnx.Rngs(0)))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert graph.widths == {"conv": 6, "hidden": 7}


def test_missing_variables_are_an_error(pair):
    _, fn, variables = pair
    with pytest.raises(KeyError, match="batch_stats"):
        fn({"params": variables["params"]}, X)


class Own(nnx.Module):
    """Takes in its call what NNX models often do."""

    def __init__(self, rngs):
        self.a, self.b = nnx.Linear(6, 16, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)

    def __call__(self, x, *, train=False, rngs=None, mutable=False):
        h = nnx.relu(self.norm(self.a(x)))
        if train:
            h = h * jax.random.bernoulli(rngs.dropout(), 0.5, h.shape).astype(h.dtype)
        return self.b(h) * (3.0 if mutable else 1.0)


class Outer(nnx.Module):
    """Hands on what it does not know."""

    def __init__(self, rngs):
        self.inner, self.last = Own(rngs), nnx.Linear(2, 2, rngs=rngs)

    def __call__(self, x, **kwargs):
        return self.last(self.inner(x, **kwargs))


class Demanding(Own):
    """Cannot be called without streams."""

    def __call__(self, x, train, rngs):
        return super().__call__(x, train=train, rngs=rngs)


INPUT = jax.random.normal(jax.random.key(5), (4, 6))


@pytest.mark.parametrize("kind", [Own, Outer, Demanding])
def test_the_models_own_keywords_reach_it(kind):
    fn, variables = reg.nnx_function(kind(nnx.Rngs(0)))
    one, two = ({"dropout": key} for key in jax.random.split(jax.random.key(1)))
    always = {"rngs": one, "train": False} if kind is Demanding else {}
    evaluated = fn(variables, INPUT, **always)
    trained = fn(variables, INPUT, train=True, rngs=one)
    assert not np.allclose(trained, evaluated)
    assert not np.allclose(trained, fn(variables, INPUT, train=True, rngs=two))
    np.testing.assert_array_equal(trained, fn(variables, INPUT, train=True, rngs=nnx.Rngs(**one)))
    if kind is not Demanding:
        assert not np.allclose(fn(variables, INPUT, mutable=True), evaluated)
    # Named collections come back as ever, beside what the model makes of them.
    _, updates = fn(variables, INPUT, train=True, rngs=one, mutable=["batch_stats"])
    assert set(updates) == {"batch_stats"}


def test_mutable_reads_as_in_linen(pair):
    _, fn, variables = pair
    assert set(fn(variables, X, mutable=True)[1]) == {"params", "batch_stats"}
    assert set(fn(variables, X, mutable="batch_stats")[1]) == {"batch_stats"}
    assert fn(variables, X, mutable=False).shape == (3, 3)


class Kind(nnx.Param):
    """A kind of parameter of one's own."""


class Adapted(nnx.Module):
    def __init__(self, rngs):
        self.a, self.b = nnx.LoRALinear(6, 16, lora_rank=3, rngs=rngs), nnx.Linear(16, 2, rngs=rngs)
        self.scale = Kind(jnp.ones((1, 16)))

    def __call__(self, x):
        return self.b(nnx.relu(self.scale[...] * self.a(x)))


@pytest.mark.promotes
def test_every_kind_of_parameter_is_one():
    model = Adapted(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    assert list(variables) == ["params"]
    graph = reg.trace_channels(fn, variables, INPUT)
    assert all(variable.trained for variable in graph.variables.values())
    assert reg.model_size(graph)() == sum(
        leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))
    )
    assert graph.widths == {"a": 16, "a/lora": 3}
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    alive = regularizer.alive(variables)
    assert {name: mask.shape for name, mask in alive.items()} == {"a": (16,), "a/lora": (3,)}


@pytest.mark.promotes
def test_adapters_are_trained_and_their_rank_shrinks_while_the_base_is_frozen():
    model = Adapted(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    graph = reg.trace_channels(fn, variables, INPUT, prunable="*/lora_a")
    assert graph.widths == {"a/lora": 3}
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    tx = reg.proximal(optax.adam(0.05), regularizer, 2.0)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.LoRAParam)
    before = jax.tree.map(jnp.copy, nnx.state(model))

    @nnx.jit
    def step(model, optimizer):
        loss = lambda model: jnp.sum((model(INPUT) - 1.0) ** 2)  # noqa: E731
        optimizer.update(model, nnx.grad(loss, argnums=nnx.DiffState(0, nnx.LoRAParam))(model))

    step(model, optimizer)
    after = nnx.state(model)
    np.testing.assert_array_equal(after["a"]["kernel"][...], before["a"]["kernel"][...])
    strengths = regularizer.strengths(after)["a/lora"]
    assert (strengths < regularizer.strengths(before)["a/lora"]).all()


@pytest.mark.promotes
def test_states_are_taken_wherever_variables_are():
    model = NNXNet(nnx.Rngs(0))
    fn, variables = reg.nnx_function(model)
    state = nnx.state(model)
    graph = reg.trace_channels(fn, state, X)
    assert graph.groups == reg.trace_channels(fn, variables, X).groups
    alive = {"conv": np.arange(6) % 3 > 0, "hidden": np.arange(7) % 2 == 0}
    arch = morph.shrink(graph, alive)
    masked, small_fn = graph.mask(state, alive), morph.compact(fn, arch)
    small = arch.take(masked)
    assert isinstance(small, nnx.State)
    np.testing.assert_allclose(small_fn(small, X), fn(masked, X), rtol=1e-5, atol=1e-6)
    # Traced one way, passed the other: neither the order nor the random streams matter.
    by_name = reg.trace_channels(fn, variables, X)
    np.testing.assert_allclose(fn(graph.mask(variables, alive), X), fn(masked, X), rtol=1e-6)
    np.testing.assert_allclose(fn(by_name.mask(state, alive), X), fn(masked, X), rtol=1e-6)
    for one, tree in ((arch, graph.mask(variables, alive)), (morph.shrink(by_name, alive), masked)):
        np.testing.assert_allclose(
            morph.compact(fn, one)(one.take(tree), X), fn(masked, X), rtol=1e-5, atol=1e-6
        )
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    found = [float(regularizer(tree)) for tree in (state, nnx.state(model, nnx.Param), variables)]
    assert len(set(found)) == 1
    # The same with a function of one's own, whose updated statistics come out resized.
    graphdef, own = nnx.split(model)

    def train(state, x):
        copy = nnx.merge(graphdef, state, copy=True)
        copy.train()
        return copy(x), nnx.state(copy, nnx.BatchStat)

    graph = reg.trace_channels(train, own, X)
    assert graph.widths == arch.seed_widths
    _, updated = morph.compact(train, arch)(arch.take(own), X)
    assert updated["norm"]["mean"].shape == (4,)


@pytest.mark.promotes
def test_an_optimizer_is_carried_over():
    model = Adapted(nnx.Rngs(0))
    graph = reg.trace_channels(*reg.nnx_function(model), INPUT)

    def optimizer_of(model, graph):
        regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
        tx = reg.proximal(optax.adam(0.01), regularizer, 0.01)
        return nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: jnp.sum(model(INPUT) ** 2))(model))

    optimizer = optimizer_of(model, graph)
    step(model, optimizer)
    arch = morph.shrink(graph, {"a": np.arange(16) % 2 == 0})
    small = morph.native(model, arch, INPUT)
    carried = optimizer_of(small, reg.trace_channels(*reg.nnx_function(small), INPUT))
    nnx.update(carried, arch.take(nnx.state(optimizer)))
    np.testing.assert_array_equal(
        carried.opt_state.inner[0].mu["a"]["bias"][...],
        optimizer.opt_state.inner[0].mu["a"]["bias"][...][::2],
    )
    step(small, carried)
    assert carried.step[...] == 2


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.up, self.down = nnx.Linear(6, 16, rngs=rngs), nnx.Linear(16, 6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.down(self.dropout(nnx.relu(self.up(x))))


class Scanned(nnx.Module):
    """Three layers as one, each with a stream of its own."""

    def __init__(self, rngs):
        make = nnx.split_rngs(splits=3)(nnx.vmap(Layer, in_axes=(0,), out_axes=0))
        self.layers, self.head = make(rngs), nnx.Linear(6, 2, rngs=rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x, layer):
            return layer(x)

        return self.head(run(x, self.layers))


def test_layers_of_vmap_run_by_scan_with_dropout():
    fn, variables = reg.nnx_function(Scanned(nnx.Rngs(0)))
    graph = reg.trace_channels(fn, variables, INPUT)
    assert graph.widths == {"layers/up": 16}
    alive = {"layers/up": np.arange(16) < 9}
    masked, arch = graph.mask(variables, alive), morph.shrink(graph, alive)
    small, small_fn = arch.take(masked), morph.compact(fn, arch)
    np.testing.assert_allclose(small_fn(small, INPUT), fn(masked, INPUT), rtol=1e-5, atol=1e-6)
    one, two = jax.random.split(jax.random.key(2))
    trained = [small_fn(small, INPUT, train=True, rngs={"dropout": key}) for key in (one, one, two)]
    np.testing.assert_array_equal(trained[0], trained[1])
    assert not np.allclose(trained[0], trained[2])


ARCH = morph.Architecture(groups={}, variables={})


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(x)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: reg.trace_channels(Linen(), {}, X),
            r"Linen module.*trace_channels\(model\.apply,",
        ),
        (
            lambda: reg.trace_channels(NNXNet(nnx.Rngs(0)), X),
            r"NNX module.*reg\.nnx_function\(model\)",
        ),
        (
            lambda: reg.trace_channels({"a": X}, Linen().apply, X),
            "fn must be a function, found a dict",
        ),
        (lambda: reg.nnx_function(Linen()), r"of Linen take model\.apply, found a Linen"),
        (lambda: morph.init(Linen(), ARCH, jax.random.key(0), X), r"Linen module.*pass its apply"),
        (
            lambda: morph.compact(Linen(), ARCH),
            r"Linen module.*morph\.compact\(model\.apply, arch\)",
        ),
        (lambda: morph.compact(ARCH, Linen().apply), "swapped with architecture"),
    ],
)
def test_a_model_is_no_function(call, said):
    with pytest.raises(TypeError, match=said):
        call()
