"""Which kernels are factorized, at which ranks, for which budget."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import morph
import regularizers as reg


class Net(nn.Module):
    """Two convolutions, one of them grouped, and dense layers."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(24, (3, 3))(x))
        x = nn.relu(nn.Conv(24, (3, 3), feature_group_count=4)(x)).mean((1, 2))
        x = nn.relu(nn.Dense(60)(x))
        return nn.Dense(7)(x)


@pytest.fixture(scope="module")
def traced():
    """Kernels with falling spectra, as trained ones have."""
    model, x = Net(), jax.random.normal(jax.random.key(1), (2, 5, 7, 8))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    variables = jax.tree.map(
        lambda leaf: leaf @ jnp.diag(0.9 ** jnp.arange(leaf.shape[-1])) if leaf.ndim > 1 else leaf,
        variables,
    )
    return model, variables, x, reg.trace_channels(model.apply, variables, x)


def relative(found, expected):
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.mark.parametrize("kind", ["auto", "svd", {"Conv_*": "tucker", "*": "tt"}])
@pytest.mark.parametrize("cost", ["flops", "size"])
def test_a_budget_is_met_from_below(traced, kind, cost):
    model, variables, x, graph = traced
    plan = morph.tensorize_plan(graph, variables, kind=kind, budget=0.7, cost=cost)
    before, after = plan.cost
    assert 0.55 * before < after <= 0.7 * before
    cores = plan.factorize(variables)
    again = reg.trace_channels(morph.tensorized(model.apply), cores, x)
    counted = {"flops": reg.flops, "size": reg.model_size}[cost](again)()
    assert counted == pytest.approx(after, rel=1e-9)
    if cost == "size":
        assert counted == sum(leaf.size for leaf in jax.tree.leaves(cores))


def test_a_tighter_budget_loses_more(traced):
    model, variables, x, graph = traced
    expected = model.apply(variables, x)
    errors = []
    for budget in (0.9, 0.7, 0.5):
        plan = morph.tensorize_plan(graph, variables, budget=budget)
        found = morph.tensorized(model.apply)(plan.factorize(variables), x)
        errors.append(relative(found, expected))
    assert errors == sorted(errors)
    assert errors[0] < 0.1


def test_nothing_to_do(traced):
    _, variables, _, graph = traced
    plan = morph.tensorize_plan(graph, variables, budget=1.0)
    assert not plan.kernels
    assert plan.cost[0] == plan.cost[1]


def test_what_stays_dense_and_why(traced):
    _, variables, _, graph = traced
    plan = morph.tensorize_plan(graph, variables, rank=5, kind={"Dense_1": "dense", "*": "auto"})
    assert plan.left == {"params/Dense_1/kernel": "as asked"}
    whole = morph.tensorize_plan(graph, variables, rank=100)
    why = "svd at ranks {'r': 24} gains nothing: flops 8,064 FLOP, dense 5,760 FLOP"
    assert whole.left["params/Dense_0/kernel"] == why
    assert "Dense_0/kernel" in str(whole)
    v = {"a": jnp.ones((6, 8)), "z": jnp.ones((8, 6))}
    bent = reg.trace_channels(lambda v, x: x @ jnp.tanh(v["a"]) @ v["z"], v, jnp.ones((1, 6)))
    assert morph.tensorize_plan(bent, v, rank=1).left["a"].startswith("used by tanh [")


class Windows(nn.Module):
    """A depthwise, a grouped and a transposed convolution with a kernel like a convolution's."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(12, (1, 1))(x))
        x = nn.relu(nn.Conv(12, (5, 5), feature_group_count=12)(x))
        x = nn.relu(nn.Conv(16, (3, 3), feature_group_count=2)(x))
        return nn.ConvTranspose(5, (3, 2), strides=(2, 2), transpose_kernel=True)(x)


class NNXWindows(nnx.Module):
    """The same without the last, which NNX calls likewise."""

    def __init__(self, *, rngs):
        self.first = nnx.Conv(3, 12, (1, 1), rngs=rngs)
        self.depthwise = nnx.Conv(12, 12, (5, 5), feature_group_count=12, rngs=rngs)
        self.grouped = nnx.Conv(12, 16, (3, 3), feature_group_count=2, rngs=rngs)

    def __call__(self, x):
        return self.grouped(nnx.relu(self.depthwise(nnx.relu(self.first(x)))))


def windows(framework):
    x = jax.random.normal(jax.random.key(2), (2, 4, 5, 3))
    if framework == "linen":
        model = Windows()
        return model.apply, model.init(jax.random.key(0), x), x
    fn, variables = reg.nnx_function(NNXWindows(rngs=nnx.Rngs(0)))
    return fn, variables, x


def with_dense(variables):
    return jax.tree.map(
        lambda leaf: leaf.dense() if isinstance(leaf, morph.Factorized) else leaf,
        variables,
        is_leaf=lambda leaf: isinstance(leaf, morph.Factorized),
    )


@pytest.mark.parametrize("framework", ["linen", "nnx"])
def test_convolutions_with_groups_and_transposed_ones(framework):
    """Shrunk, then factorized: values, and a price that is that of what runs."""
    fn, variables, x = windows(framework)
    seed = reg.trace_channels(fn, variables, x)
    narrow = next(name for name, width in seed.widths.items() if width == 6)
    arch = morph.shrink(seed, {narrow: jnp.arange(6) % 3 > 0})
    small, small_fn = arch.take(variables), morph.compact(fn, arch)
    graph = reg.trace_channels(small_fn, small, x)
    plan = morph.tensorize_plan(graph, small, rank=1)
    kinds = {path.split("/")[1]: kernel.format.kind for path, kernel in plan.kernels.items()}
    if framework == "linen":
        assert kinds.pop("ConvTranspose_0") == "tucker2"
    assert sorted(kinds.values()) == ["cp", "svd", "tucker2"]
    cores, both = plan.factorize(small), morph.tensorized(small_fn)
    found, expected = both(cores, x), small_fn(with_dense(cores), x)
    assert relative(found, expected) < 1e-5
    assert reg.flops(reg.trace_channels(both, cores, x))() == plan.cost[1] < plan.cost[0]
    final = arch.then(morph.Architecture.of_seed(graph).tensorized(plan.kernels))
    again = morph.compact(fn, final)(final.take(variables), x)
    assert relative(again, expected) < 1e-4


def test_a_depthwise_window_that_gains_nothing_stays():
    fn, variables, x = windows("linen")
    graph = reg.trace_channels(fn, variables, x)
    plan = morph.tensorize_plan(graph, variables, kind={"Conv_1": "svd", "*": "dense"}, rank=1)
    assert plan.left["params/Conv_1/kernel"].startswith("svd at ranks {'r': 1} gains nothing: fl")
    kind = {"Conv_1": "dense", "*": "auto"}
    data = morph.tensorize_plan(graph, variables, kind=kind, rank=2, calibration=(x,))
    assert "params/Conv_2/kernel" in data.kernels.keys() - data.responses.keys()
    assert "params/ConvTranspose_0/kernel" in data.responses


def test_other_variables_are_decomposed_at_the_ranks_of_the_plan(traced):
    _, variables, _, graph = traced
    plan = morph.tensorize_plan(graph, variables, rank=4)
    first = plan.factorize(variables)["params"]["Dense_0"]["kernel"]
    other = jax.tree.map(lambda leaf: leaf + 1.0, variables)
    second = plan.factorize(other)["params"]["Dense_0"]["kernel"]
    assert first.ranks == second.ranks == {"r": 4}
    assert relative(second.dense(), other["params"]["Dense_0"]["kernel"]) < 0.2


def test_fresh_cores_have_the_variance_of_the_initializer(traced):
    model, variables, x, graph = traced
    plan = morph.tensorize_plan(graph, variables, rank=4)
    fresh = plan.draw(jax.jit(model.init)(jax.random.key(3), x), jax.random.key(4))
    kernel = fresh["params"]["Conv_0"]["kernel"].dense()
    assert float(kernel.std()) == pytest.approx((3 * 3 * 8) ** -0.5, rel=0.25)


def test_a_plan_is_plain_data(traced):
    _, variables, _, graph = traced
    plan = morph.tensorize_plan(graph, variables, kind={"Dense_*": "tt", "*": "auto"}, rank=3)
    for path, kernel in plan.kernels.items():
        assert type(kernel).from_json(path, kernel.to_json()) == kernel
        lying = {**kernel.to_json(), "parameters": 1}
        with pytest.raises(ValueError, match="says shape, ranks and parameters"):
            type(kernel).from_json(path, lying)


def test_a_stack_of_layers_keeps_common_ranks():
    class Layer(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return jnp.tanh(nn.Dense(16)(x)), None

    class Stack(nn.Module):
        @nn.compact
        def __call__(self, x):
            layers = nn.scan(
                Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
            )
            return layers()(x, None)[0]

    model, x = Stack(), jax.random.normal(jax.random.key(0), (5, 16))
    variables = jax.jit(model.init)(jax.random.key(1), x)
    graph = reg.trace_channels(model.apply, variables, x)
    plan = morph.tensorize_plan(graph, variables, budget=0.8)
    (kernel,) = plan.kernels.values()
    assert kernel.roles == "bio"
    found = morph.tensorized(model.apply)(plan.factorize(variables), x)
    assert relative(found, model.apply(variables, x)) < 0.7
    exact = morph.tensorize_plan(graph, variables, error=1e-6)
    assert not exact.kernels


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "exactly one of rank, energy, error and budget, found none"),
        ({"rank": 3, "budget": 0.5}, "found rank and budget"),
        ({"rank": 0}, "rank of r_in is a whole number of at least 1, found 0"),
        ({"rank": 3, "kind": "svt"}, "kind 'svt' is none of .* did you mean 'svd'"),
        ({"rank": 3, "kind": {"Covn_0": "svd"}}, "kind='Covn_0' matches no layer"),
        (
            {"budget": 0.01},
            "a budget of .* is out of reach: with every kernel at its smallest ranks",
        ),
        ({"budget": "3ms"}, "does not fit the target"),
        (
            {"rank": 3, "kind": "tt", "factors": {"params/Dense_0/kernel": [[5, 5], [6, 10]]}},
            r"factors \[\[5, 5\], \[6, 10\]\] do not multiply to the shape \[24, 60\]",
        ),
    ],
)
def test_bad_requests(traced, asked, message):
    _, variables, _, graph = traced
    with pytest.raises(ValueError, match=message):
        morph.tensorize_plan(graph, variables, **asked)


def test_a_kernel_that_is_not_finite_is_named(traced):
    _, variables, _, graph = traced
    broken = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), variables)
    with pytest.raises(ValueError, match=r"kernel params/Conv_0/kernel .* NaN or infinite"):
        morph.tensorize_plan(graph, broken, rank=3)
