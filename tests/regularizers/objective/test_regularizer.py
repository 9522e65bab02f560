import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import regularizers as reg
from regularizers.channels.naming import by_group
from regularizers.costs.cost import multilinear
from regularizers.patterns import parse


class ConvNet(nn.Module):
    """conv-BN-relu, conv-BN-relu, dense."""

    @nn.compact
    def __call__(self, x, train=False):
        for i, features in enumerate((6, 5)):
            x = nn.Conv(features, (3, 3), use_bias=False, name=f"conv_{i}")(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, name=f"norm_{i}")(x))
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


class NNXMLP(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.second = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.second(nnx.relu(self.first(x)))


def mlp(variables, x):
    """4 -> 6 -> 5 -> 3 without biases."""
    hidden = jax.nn.relu(x @ variables["a"])
    return jax.nn.relu(hidden @ variables["b"]) @ variables["c"]


@pytest.fixture(scope="module")
def conv_net():
    model, x = ConvNet(), jnp.zeros((2, 5, 7, 3))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    return variables, graph


@pytest.fixture(scope="module")
def dense_net():
    sizes = {"a": (4, 6), "b": (6, 5), "c": (5, 3)}
    keys = jax.random.split(jax.random.key(1), 3)
    variables = {
        name: jax.random.normal(key, shape)
        for (name, shape), key in zip(sizes.items(), keys, strict=True)
    }
    # One dead channel in a, two in b.
    variables["a"] = variables["a"].at[:, 2].set(0.0)
    variables["b"] = variables["b"].at[:, jnp.array([0, 4])].set(0.0)
    return variables, reg.trace_channels(mlp, variables, jnp.zeros((1, 4)))


def root_mean_square(kernel):
    return np.sqrt(np.mean(np.asarray(kernel, np.float64) ** 2, axis=0))


def test_equals_the_formula_by_hand(dense_net):
    variables, graph = dense_net
    r_a, r_b = root_mean_square(variables["a"]).sum(), root_mean_square(variables["b"]).sum()
    alive_a, alive_b = 5, 3
    for cost, scale in ((reg.flops(graph), 2), (reg.model_size(graph), 1)):
        seed = scale * (4 * 6 + 6 * 5 + 5 * 3)
        term = scale * (4 * r_a + (alive_a * r_b + alive_b * r_a) + 3 * r_b) / seed
        regularizer = reg.NetworkRegularizer(graph, cost)
        np.testing.assert_allclose(regularizer(variables), term, rtol=1e-6)
        assert cost() == seed


def test_equals_strengths_times_marginal_costs(conv_net):
    variables, graph = conv_net
    for penalty in ("group_lasso", "gamma"):
        regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), penalty)
        strengths = regularizer.strengths(variables)
        marginal = regularizer.marginal_costs(strengths)
        assert list(marginal) == list(strengths) == ["conv_0", "conv_1"]
        by_hand = sum(marginal[name] * strengths[name].sum() for name in strengths)
        np.testing.assert_allclose(regularizer(variables), by_hand, rtol=1e-6)


def test_gradient_holds_marginal_costs_constant(dense_net):
    variables, graph = dense_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    strengths = regularizer.strengths(variables)
    marginal = regularizer.marginal_costs(strengths)
    seed = 2 * (4 * 6 + 6 * 5 + 5 * 3)
    np.testing.assert_allclose(marginal["a"], 2 * (4 + 3) / seed, rtol=1e-6)
    np.testing.assert_allclose(marginal["b"], 2 * (5 + 3) / seed, rtol=1e-6)
    gradient = jax.grad(regularizer)(variables)
    for name in ("a", "b"):
        kernel = np.asarray(variables[name])
        strength = root_mean_square(kernel)
        with np.errstate(invalid="ignore", divide="ignore"):
            direction = np.where(strength > 0, kernel / (kernel.shape[0] * strength), 0.0)
        np.testing.assert_allclose(gradient[name], marginal[name] * direction, rtol=1e-5)
    np.testing.assert_array_equal(gradient["c"], 0.0)


def test_it_prints_what_is_paid_for(dense_net):
    graph = dense_net[1]
    shown = repr(reg.NetworkRegularizer(graph, reg.flops(graph)))
    assert shown == f"NetworkRegularizer(cost=flops, groups={len(graph.groups)})"


def test_threshold_decides_what_is_alive(dense_net):
    variables, graph = dense_net
    variables = {**variables, "a": jnp.tile(jnp.arange(6.0), (4, 1))}
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=2.5)
    alive = regularizer.alive(variables)
    np.testing.assert_array_equal(alive["a"], [False, False, False, True, True, True])
    assert regularizer.alive_widths(regularizer.strengths(variables))[0] == 3
    # Where all of a group is below the threshold, its strongest channel stays.
    np.testing.assert_array_equal(np.flatnonzero(alive["b"]).size, 1)
    assert alive["b"][np.argmax(root_mean_square(variables["b"]))]
    widths = {name: int(a.sum()) for name, a in alive.items()}
    assert regularizer.alive_cost(variables) == reg.flops(graph)(widths)


def test_a_dead_group_keeps_one_channel(dense_net):
    variables, graph = dense_net
    variables = jax.tree.map(jnp.zeros_like, variables)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    alive = regularizer.alive(variables)
    assert [int(a.sum()) for a in alive.values()] == [1, 1]
    assert regularizer.alive_cost(variables) == 2 * (4 + 1 + 3)
    value, gradient = jax.value_and_grad(regularizer)(variables)
    assert value == 0.0
    assert all(np.all(g == 0.0) for g in gradient.values())


def test_the_seed_costs_its_own_cost(conv_net):
    variables, graph = conv_net
    for build in (reg.flops, reg.model_size):
        regularizer = reg.NetworkRegularizer(graph, build(graph))
        assert regularizer.alive_cost(variables) == build(graph)()


@pytest.mark.parametrize("penalty", ["group_lasso", "gamma"])
def test_takes_variables_or_only_params(conv_net, penalty):
    variables, graph = conv_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), penalty)
    assert regularizer(variables) == regularizer({"params": variables["params"]})
    assert regularizer(variables) == regularizer(variables["params"])
    whole = regularizer.shrink_step(variables, 0.1)
    jax.tree.map(
        np.testing.assert_array_equal,
        whole["params"],
        regularizer.shrink_step(variables["params"], 0.1),
    )
    jax.tree.map(np.testing.assert_array_equal, whole["batch_stats"], variables["batch_stats"])


def test_takes_nnx_state(dense_net):
    del dense_net
    fn, variables = reg.nnx_function(NNXMLP(nnx.Rngs(0)))
    graph = reg.trace_channels(fn, variables, jnp.zeros((2, 4)))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    kernel = variables["params"]["first"]["kernel"]
    strength = root_mean_square(kernel).sum()  # the bias is zero, and weaker
    np.testing.assert_allclose(regularizer(variables), strength / 6, rtol=1e-6)
    assert regularizer(variables) == regularizer(variables["params"])


def test_works_under_jit(conv_net):
    variables, graph = conv_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), "gamma")
    np.testing.assert_allclose(jax.jit(regularizer)(variables), regularizer(variables), rtol=1e-6)


def test_combination_and_l1_share_are_used(conv_net):
    variables, graph = conv_net
    cost = reg.flops(graph)
    terms = [
        float(reg.NetworkRegularizer(graph, cost, combine=c, l1_share=s)(variables))
        for c, s in (("max", 0.0), ("l2", 0.0), ("l2", 0.5))
    ]
    assert terms[1] > terms[0]  # a norm over members is no less than their maximum
    assert terms[2] < terms[1]  # mean |w| is at most the RMS


def test_shrink_step_takes_step_times_marginal_cost(dense_net):
    variables, graph = dense_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    before = regularizer.strengths(variables)
    marginal = regularizer.marginal_costs(before)
    after = regularizer.strengths(regularizer.shrink_step(variables, 8.0))
    for name in before:
        expected = np.maximum(before[name] - 8.0 * marginal[name], 0.0)
        np.testing.assert_allclose(after[name], expected, atol=1e-6)
        assert 0 < np.sum(expected > 0) < np.sum(before[name] > 0)
        np.testing.assert_array_equal(after[name] == 0.0, expected == 0.0)


def test_inexact_groups_are_left_alone_unless_asked_for():
    def fn(variables, x):  # exp(0) = 1: a dead channel of `a` is not zero
        return jnp.exp(x @ variables["a"]) @ variables["b"] @ variables["c"]

    variables = {"a": jnp.ones((3, 5)), "b": jnp.ones((5, 4)), "c": jnp.ones((4, 2))}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    assert [group.exact for group in graph.groups.values()] == [False, True]
    cost = reg.flops(graph)
    some = reg.NetworkRegularizer(graph, cost)
    every = reg.NetworkRegularizer(graph, cost, inexact=True)
    assert (list(some.strengths(variables)), list(every.strengths(variables))) == (
        ["b"],
        ["a", "b"],
    )
    # A group that is not pulled counts at its seed width.
    np.testing.assert_allclose(some(variables), 2 * (5 + 2) * 4 / cost(), rtol=1e-6)
    np.testing.assert_array_equal(some.shrink_step(variables, 1e3)["a"], variables["a"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"penalty": "gama"},
            "unknown option 'gama'; did you mean 'gamma' or 'gates'?",
        ),
        ({"penalty": "xyz"}, "unknown option 'xyz'; known are 'group_lasso'"),
        ({"combine": "maxx"}, "unknown option 'maxx'; did you mean 'max'"),
        ({"relative_to": "frsh"}, "unknown option 'frsh'; did you mean 'fresh'"),
        ({"l1_share": 1.5}, "l1_share must be .* at least 0 and at most 1, found 1.5"),
        ({"l1_share": -0.5}, "l1_share must be .* at least 0 and at most 1, found -0.5"),
    ],
)
def test_wrong_options_are_refused(dense_net, options, message):
    _, graph = dense_net
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        reg.NetworkRegularizer(graph, reg.flops(graph), **options)


def test_a_network_without_groups_is_refused():
    def fn(variables, x):
        return x @ variables["w"]

    variables = {"w": jnp.ones((3, 5))}
    graph = reg.trace_channels(fn, variables, jnp.ones((1, 3)))
    with pytest.raises(ValueError, match="no channel group that can be shrunk exactly"):
        reg.NetworkRegularizer(graph, reg.flops(graph))


def test_strengths_relative_to_their_groups_means(dense_net):
    variables, graph = dense_net
    plain = reg.NetworkRegularizer(graph, reg.flops(graph))
    relative = reg.NetworkRegularizer(graph, reg.flops(graph), relative_to=variables)
    before, after = plain.strengths(variables), relative.strengths(variables)
    for name, s in before.items():
        np.testing.assert_allclose(after[name], s / s.mean(), rtol=1e-5)
    wider = {**variables, "a": 3.0 * variables["a"]}
    np.testing.assert_allclose(relative.strengths(wider)["a"], 3.0 * after["a"], rtol=1e-5)
    # A step takes as much of a channel as its strength loses, in these units.
    step = 0.5 * float(after["a"].max()) / float(relative.marginal_costs(after)["a"])
    pulled = relative.strengths(relative.shrink_step(variables, step))["a"]
    expected = np.maximum(np.asarray(after["a"]) - 0.5 * float(after["a"].max()), 0.0)
    np.testing.assert_allclose(pulled, expected, rtol=1e-4, atol=1e-6)


class FallsBack(nn.Module):
    """A hidden layer with a scale to measure, and one without."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(6, use_bias=False)(x))
        x = nn.relu(nn.Dense(5, use_bias=False)(nn.relu(x)))
        return nn.Dense(2)(x)


def test_strengths_in_units_of_fresh_layers(dense_net):
    variables, graph = dense_net
    plain = reg.NetworkRegularizer(graph, reg.flops(graph)).strengths(variables)
    fresh = reg.NetworkRegularizer(graph, reg.flops(graph), relative_to="fresh")
    for name, fan_in in (("a", 4), ("b", 6)):
        expected = plain[name] * np.sqrt(fan_in)
        np.testing.assert_allclose(fresh.strengths(variables)[name], expected, rtol=1e-5)
    # Where a layer has no scale, its kernel competes with the scales of others.
    model, x = FallsBack(), jnp.zeros((1, 4))
    variables = jax.jit(model.init)(jax.random.key(0), x)
    graph = reg.trace_channels(model.apply, variables, x)
    gamma = reg.NetworkRegularizer(graph, reg.flops(graph), "gamma").strengths(variables)
    kernel = np.asarray(variables["params"]["Dense_1"]["kernel"], np.float64)
    np.testing.assert_allclose(gamma["Dense_0"], 1.0)
    np.testing.assert_allclose(gamma["Dense_1"], root_mean_square(kernel) * 6**0.5, rtol=1e-5)


def test_a_cost_of_nothing_is_refused():
    graph = reg.trace_channels(
        lambda v, x: (x * v["a"]) @ v["b"], {"a": jnp.ones(3), "b": jnp.ones((3, 2))}, jnp.ones(3)
    )
    free = multilinear(graph.widths, "free", "coins", [])
    with pytest.raises(ValueError, match=r"the seed's cost must be positive, found 0\.0"):
        reg.NetworkRegularizer(graph, free)


def test_variables_that_do_not_fit_are_refused(dense_net, conv_net):
    variables, graph = dense_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    with pytest.raises(ValueError, match=r"'b' was traced with shape \[6, 5\], found \[6, 4\]"):
        regularizer({**variables, "b": jnp.zeros((6, 4))})
    with pytest.raises(
        ValueError, match="do not fit the graph: 'a' is missing; known are 'b', 'c'"
    ):
        regularizer({"b": variables["b"], "c": variables["c"]})
    variables, graph = conv_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    with pytest.raises(ValueError, match="'params/conv_0/kernel' is missing; did you mean"):
        regularizer({"params": {"conv": variables["params"]["conv_0"]}})
    with pytest.raises(ValueError, match=r"'params/conv_0/kernel' is missing"):
        regularizer.shrink_step({"batch_stats": variables["batch_stats"]}, 0.1)


def test_a_penalty_and_a_strength_per_pattern(conv_net):
    variables, graph = conv_net
    cost = reg.flops(graph)
    mixed = reg.NetworkRegularizer(
        graph, cost, {"conv_0": "gamma", "*": "group_lasso"}, strengths={"conv_1": 0.25}
    )
    assert [g.penalty for g in mixed.groups] == ["gamma", "group_lasso"]
    gamma = reg.NetworkRegularizer(graph, cost, "gamma", threshold=0.0)
    s = mixed.strengths(variables)
    # In units of a freshly drawn layer's, so that they compete: both are about 1.
    np.testing.assert_allclose(s["conv_0"], gamma.strengths(variables)["conv_0"])
    kernel = np.asarray(variables["params"]["conv_1"]["kernel"], np.float64)
    fresh = np.sqrt(np.mean(kernel**2, axis=(0, 1, 2)) * 3 * 3 * 6)
    np.testing.assert_allclose(s["conv_1"], np.maximum(fresh, 1.0), rtol=1e-5)  # its scale is 1
    marginal = mixed.marginal_costs(s)
    term = sum(w * marginal[n] * s[n].sum() for n, w in (("conv_0", 1.0), ("conv_1", 0.25)))
    np.testing.assert_allclose(mixed(variables), term, rtol=1e-6)
    after = mixed.strengths(mixed.shrink_step(variables, 0.5))
    for name, weight in (("conv_0", 1.0), ("conv_1", 0.25)):
        expected = np.maximum(s[name] - 0.5 * weight * marginal[name], 0.0)
        np.testing.assert_allclose(after[name], expected, rtol=1e-5, atol=1e-6)
    # Pulled a quarter as hard, worth four times as much where channels compete.
    np.testing.assert_allclose(mixed.worth(s)["conv_1"], 4.0 * np.asarray(s["conv_1"]), rtol=1e-6)
    saliency = {name: np.arange(1.0, 1.0 + len(each)) for name, each in s.items()}
    told = mixed.worth({**s, "conv_0": np.zeros(6)}, saliency)
    assert told["conv_0"].tolist() == [0.0] * 6
    assert told["conv_1"].tolist() == (4.0 * saliency["conv_1"]).tolist()
    silent = {name: np.zeros(len(each)) for name, each in s.items()}
    for lacking in (None, {}, {"conv_0": saliency["conv_0"]}, silent):
        np.testing.assert_array_equal(mixed.worth(s, lacking)["conv_0"], s["conv_0"])
    one = reg.NetworkRegularizer(graph, cost, strengths={"conv_1": 0.0})
    assert [g.group for g in one.groups] == ["conv_0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": {"conv_2": "gamma"}}, "penalty: 'conv_2' matches no .*did you mean 'conv_"),
        ({"penalty": {"conv_0": "gamma"}}, "no pattern of 'conv_0' matches the group 'conv_1'"),
        ({"penalty": {"*": "gama"}}, "unknown option 'gama'"),
        ({"strengths": {"dense": 1.0}}, "strengths: 'dense' matches no channel group"),
        (
            {"strengths": {"*": -1.0}},
            r"strengths must be .* at least 0 by pattern, found {'\*': -1.0}",
        ),
        ({"strengths": {"*": 0.0}}, "Some have a strength of 0"),
    ],
)
def test_patterns_that_do_not_fit_are_refused(conv_net, options, message):
    _, graph = conv_net
    with pytest.raises(ValueError, match=message):
        reg.NetworkRegularizer(graph, reg.flops(graph), **options)


def test_patterns_match_groups_by_module_and_by_variable(conv_net):
    _, graph = conv_net
    assert by_group(graph, {"norm_0": 1, "*/scale": 2}, "x") == {"conv_0": 1, "conv_1": 2}
    assert parse("Conv_0=8,Block_*=4", "floors", int) == {"Conv_0": 8, "Block_*": 4}
    for wrong in ("Conv_0", "Conv_0=x", "=3"):
        with pytest.raises(ValueError, match=f"floors: '{wrong}' is not PATTERN=VALUE"):
            parse(wrong, "floors", int)
    with pytest.raises(ValueError, match="floors: 'a' is given twice; the first"):
        parse("a=1,b=2,a=3", "floors", int)


def test_a_protected_group_does_not_vanish(dense_net):
    """However hard it is pulled, and even if its strongest channel is: the floor stays."""
    variables, graph = dense_net
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), threshold=0.0)
    alive = {name: s > 0 for name, s in regularizer.strengths(variables).items()}
    step = jax.jit(lambda v: regularizer.shrink_step(v, 1e3, protected=alive))
    for _ in range(60):
        variables = step(variables)
    for name, s in regularizer.strengths(variables).items():
        fresh = 1 / np.sqrt(variables[name].shape[0])
        assert s[alive[name]].min() >= 0.049 * fresh
