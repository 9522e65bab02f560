import inspect
import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import regularizers as reg
from regularizers.channels import graph as graphs
from regularizers.primitives.axes import Product, Sum

HERE = Path(__file__).name


def struct(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def axes(graph, path):
    return graph.variables[f"params/{path}"].axes


def mlp(act, **changes):
    """x [2, 5] -> act(x a + b) c, with 7 hidden channels."""
    variables = {"a": struct(5, 7), "b": struct(7), "c": struct(7, 3)} | changes

    def fn(v, x):
        return act(x @ v["a"] + v["b"].reshape(1, 7)) @ v["c"]

    return reg.trace_channels(fn, variables, struct(2, 5))


# What falls out


def test_residual_blocks_are_tied(networks):
    graph = networks("residual").graph
    assert graph.widths == {"Conv_0": 7, "Conv_1": 5, "Conv_3": 6, "Conv_4": 11}
    assert axes(graph, "Conv_2/kernel") == (3, 3, "Conv_1", "Conv_0")
    assert axes(graph, "Conv_5/kernel") == (1, 1, "Conv_0", "Conv_4")
    assert graph.variables["batch_stats/BatchNorm_2/var"].axes == ("Conv_0",)


def test_towers_are_concatenated(networks):
    graph = networks("towers").graph
    assert axes(graph, "Conv_4/kernel")[2] == Sum(("Conv_1", "Conv_2", "Conv_0"))
    assert set(graph.widths.values()) == {5, 7, 3, 4, 6}


@pytest.mark.parametrize(
    ("name", "path", "axis"),
    [
        ("flatten", "Dense_0/kernel", Product((4, "Conv_0"))),
        ("nnx", "head/kernel", Product((16, "stem"))),
    ],
)
def test_flatten_merges_height_width_and_channels(networks, name, path, axis):
    assert axes(networks(name).graph, path)[0] == axis


@pytest.mark.parametrize("name", ["transformer", "nnx_attention"])
def test_heads_and_their_widths_are_separate_groups(networks, name):
    graph = networks(name).graph
    heads, width = "attention/query[1]", "attention/query[2]"
    for layer in ("query", "key"):
        assert axes(graph, f"attention/{layer}/kernel")[1:] == (heads, width)
    assert axes(graph, "attention/value/kernel")[1:] == (heads, "attention/value")
    assert axes(graph, "attention/out/kernel")[:2] == (heads, "attention/value")
    assert (graph.widths[heads], graph.widths[width]) == (3, 5)


def test_residual_stream_of_a_transformer_is_one_exact_group(networks):
    graph = networks("transformer").graph
    assert graph.groups["embed"].exact
    for path in ("attention/out/kernel", "down/kernel"):
        assert axes(graph, path)[-1] == "embed"


def test_split_gate_has_both_halves_alike(networks):
    assert axes(networks("transformer").graph, "gated/kernel")[1] == Sum(("gated", "gated"))


def test_group_norm_and_grouped_convolution_go_by_whole_groups(networks):
    graph = networks("grouped").graph
    groups, inner = "Conv_0[3.0]", "Conv_0[3.1]"
    assert axes(graph, "GroupNorm_0/scale") == (Product((groups, inner)),)
    assert axes(graph, "Conv_1/kernel") == (3, 3, inner, Product((groups, "Conv_1")))
    assert (graph.widths[groups], graph.widths[inner], graph.widths["Conv_1"]) == (3, 4, 5)


def test_depthwise_convolution_has_the_width_of_its_input(networks):
    assert axes(networks("grouped").graph, "Conv_2/kernel")[2:] == (
        1,
        Product(("Conv_0[3.0]", "Conv_1")),
    )
    assert axes(networks("nnx").graph, "depthwise/kernel") == (3, 3, 1, "stem")


def test_transposed_convolution(networks):
    kernel = axes(networks("grouped").graph, "ConvTranspose_0/kernel")
    assert kernel == (2, 2, Product(("Conv_0[3.0]", "Conv_1")), "ConvTranspose_0")


def test_tied_embedding_produces_and_consumes(networks):
    graph = networks("tied").graph
    variable = graph.variables["params/Embed_0/embedding"]
    assert variable.axes == (13, "Embed_0")
    assert 1 in variable.produces & variable.consumes
    assert "indexed (the vocabulary axis of a gather)" in graph.explain("Embed_0/embedding")


def test_squeeze_and_excite_gate_is_exact_for_what_it_scales(networks):
    graph = networks("gated").graph
    assert axes(graph, "Dense_1/kernel") == ("Dense_0", "Conv_0")
    assert graph.groups["Conv_0"].exact  # sigmoid(0) is not 0, but 0 x sigmoid(0) is
    assert graph.groups["Dense_0"].exact


def test_every_group_of_every_network_is_exact(network):
    graph = network.graph
    assert graph.unknown == {}
    assert all(group.exact for group in graph.groups.values())
    assert all(len(group.members) > 1 for group in graph.groups.values())


def test_every_group_has_a_producer(network):
    for group in network.graph.groups.values():
        assert any(member.produces for member in group.members)


def test_train_mode_has_the_same_groups(network):
    train = reg.trace_channels(network.fn, network.variables, *network.inputs, **network.train)
    assert train.widths == network.graph.widths
    assert {path: v.axes for path, v in train.variables.items()} == {
        path: v.axes for path, v in network.graph.variables.items()
    }


def test_abstract_variables_give_the_same_graph(network):
    abstract = jax.tree.map(lambda a: struct(*a.shape, dtype=a.dtype), network.variables)
    assert str(reg.trace_channels(network.fn, abstract, *network.inputs)) == str(network.graph)


def test_inputs_and_outputs_are_fixed(networks):
    graph = networks("residual").graph
    assert axes(graph, "Conv_0/kernel")[2] == 3
    assert "axis of an input" in graph.explain("Conv_0/kernel")
    assert "axis of an output" in graph.explain("Dense_0/kernel")


# Exactness


@pytest.mark.parametrize(
    "act",
    [
        nn.relu,
        nn.gelu,
        nn.silu,
        nn.tanh,
        nn.relu6,
        nn.leaky_relu,
        nn.elu,
        nn.hard_swish,
        lambda h: h * nn.sigmoid(h),
        lambda h: h**2 / (1.0 + h**2),
        lambda h: jnp.where(h > 0.5, h, 0.0),
        lambda h: jnp.clip(h, -0.5, 6.0),
        lambda h: lax.clamp(-1.0, h, 1.0),
        lambda h: nn.relu(h.astype(jnp.bfloat16)).astype(h.dtype),
        lambda h: jnp.maximum(h, jnp.full((1, 7), -2)),
        lambda h: h / 3.0,
        lambda h: jnp.concatenate([h[:, :2], h[:, 2:]], 1),
        lambda h: nn.LayerNorm(use_bias=False, use_scale=False).apply({}, h) * h,
    ],
)
def test_zero_stays_zero(act):
    assert all(group.exact for group in mlp(act).groups.values())


@pytest.mark.parametrize(
    "act",
    [
        jnp.exp,
        nn.sigmoid,
        jnp.cos,
        nn.softplus,
        lambda h: h + 1.0,
        lambda h: h / h,  # 0/0
        lambda h: 1.0 / h,
        lambda h: h**-2,
        lambda h: jnp.where(h > 0.5, h, 1.0),
        lambda h: jnp.clip(h, 0.5, 6.0),
        lambda h: jnp.clip(h, -6.0, -0.5),
        lambda h: lax.clamp(1.0, h, 6.0),
        lambda h: jnp.maximum(h, -jnp.full((1, 7), -2)),  # a sign is not followed through this
    ],
)
def test_zero_does_not_stay_zero(act):
    (group,) = mlp(act).groups.values()
    assert not group.exact
    reason = r"its dead channels are not zero where dot_general consumes them, .*"
    assert re.fullmatch(rf"{reason} \[.*{HERE}:\d+.* \(.*fn\)\]", group.why_inexact)


@pytest.mark.parametrize(
    "act",
    [
        lambda h: jnp.maximum(h, np.arange(7.0, dtype=np.float32).reshape(1, 7) - 3.0),
        lambda h: h - h.mean(1, keepdims=True),
        lambda h: h + jax.random.normal(jax.random.key(0), h.shape),
    ],
)
def test_what_takes_in_other_than_zeros_and_numbers_produces_too(act):
    """Only zeros in the rows of the kernel that takes a channel in make it dead."""
    graph = mlp(act)
    (group,) = graph.groups.values()
    assert group.exact
    assert [m.path for m in group.members if m.produces and m.consumes] == ["c"]


def test_inexact_names_the_line_that_consumes():
    def fn(v, x):
        h = jnp.exp(x @ v["a"])
        return h @ v["c"]  # here

    graph = reg.trace_channels(fn, {"a": struct(5, 7), "c": struct(7, 3)}, struct(2, 5))
    lines, first = inspect.getsourcelines(fn)
    line = first + next(i for i, text in enumerate(lines) if "# here" in text)
    assert re.search(rf"{HERE}:{line}\b", graph.groups["a"].why_inexact)
    assert graph.groups["a"].why_inexact in graph.explain("a")
    assert "width 7, inexact" in graph.explain("a")


def test_sum_of_what_is_not_zero_is_inexact():
    def fn(v, x):
        h = x @ v["a"]
        return jnp.cumsum(jnp.exp(h), 0).sum(1) + (h @ v["c"]).sum(1)

    graph = reg.trace_channels(fn, {"a": struct(5, 7), "c": struct(7, 3)}, struct(2, 5))
    assert "where reduce_sum consumes them" in graph.groups["a"].why_inexact
    assert graph.groups["c"].exact


def test_softmax_over_channels_is_fixed():
    graph = mlp(nn.softmax)
    assert graph.widths == {}
    assert "a maximum is taken over it, which a zero could win" in graph.explain("a")


def test_slow_variance_is_exact():
    """All squares of (0 - mean) of dead channels are alike: `compact` adds them to the sum."""
    norm = nn.LayerNorm(use_fast_variance=False, use_bias=False, use_scale=False)
    (group,) = mlp(lambda h: norm.apply({}, h) * h).groups.values()
    assert group.exact


# What cannot be resized


def test_unknown_primitive_pins_all_it_touches_and_is_reported():
    def fn(v, x):
        h = jax.pure_callback(np.sin, struct(2, 7), x @ v["a"])  # here
        return nn.relu(h @ v["c"]) @ v["d"]

    variables = {"a": struct(5, 7), "c": struct(7, 11), "d": struct(11, 3)}
    graph = reg.trace_channels(fn, variables, struct(2, 5))
    assert list(graph.unknown) == ["pure_callback"]
    lines, first = inspect.getsourcelines(fn)
    line = first + next(i for i, text in enumerate(lines) if "# here" in text)
    where = rf"\[.*{HERE}:{line}.*\]"
    assert re.search(
        rf"no rule for pure_callback: all that it touches is pinned {where}", str(graph)
    )
    assert re.search(
        rf"axis 1: 7, fixed: touched by pure_callback, for which there is no rule +{where}",
        graph.explain("a"),
    )
    assert graph.widths == {"c": 11}


def test_what_no_variable_produces_is_fixed():
    graph = reg.trace_channels(
        lambda v, x: jnp.broadcast_to(x.sum(), (7,)) @ v["c"], {"c": struct(7, 3)}, struct(3)
    )
    assert graph.widths == {}
    assert "no variable produces it, so it cannot be zeroed" in graph.explain("c")


def test_update_of_a_variable_is_no_output():
    def fn(v, x):
        return {"state": {"mean": 0.9 * v["state"]["mean"] + 0.1 * x @ v["params"]["a"]}}

    variables = {"params": {"a": struct(5, 7)}, "state": {"mean": struct(7)}}
    assert reg.trace_channels(fn, variables, struct(5)).widths == {"a": 7}


# Texts


def test_explain_a_variable():
    def fn(v, x):
        h = jnp.sort(x @ v["a"], axis=1)  # here
        return nn.relu(h @ v["b"]["w"]) @ v["c"]

    variables = {"a": struct(5, 7), "b": {"w": struct(7, 11)}, "c": struct(11, 3)}
    graph = reg.trace_channels(fn, variables, struct(2, 5))
    lines, first = inspect.getsourcelines(fn)
    line = first + next(i for i, text in enumerate(lines) if "# here" in text)
    title, axis_0, axis_1 = graph.explain("b/w").splitlines()
    assert title == "b/w  float32[7, 11]"
    assert re.fullmatch(rf"  axis 0: 7, fixed: sorted along it  \[.*{HERE}:{line}.*\]", axis_0)
    assert axis_1 == "  axis 1: 11 = b, produces"


def test_explain_a_group(networks):
    assert networks("flatten").graph.explain("Conv_0").splitlines() == [
        "group Conv_0: width 7, exact",
        "  params/Conv_0/kernel axis 3 (kernel, produces)",
        "  params/Conv_0/bias axis 0 (shift, produces)",
        "  params/Dense_0/kernel axis 0 (kernel, consumes)",
    ]


def test_paths_work_with_and_without_collection(networks):
    graph = networks("flatten").graph
    text = graph.explain("params/Dense_0/kernel")
    assert graph.explain("Dense_0/kernel") == text
    assert "axis 0: 28 = (4 x Conv_0), consumes" in text


def test_a_layer_is_explained_by_all_of_its_variables():
    def fn(v, x):
        layer = v["params"]["a"]
        return jnp.sort(x @ layer["w"] + layer["b"][None], axis=1) @ v["params"]["z"]

    variables = {"params": {"a": {"b": struct(7), "w": struct(5, 7)}, "z": struct(7, 3)}}
    graph = reg.trace_channels(fn, variables, struct(2, 5))
    told = "\n".join(graph.explain(f"a/{name}") for name in "bw")
    assert graph.explain("a") == graph.explain("params/a") == told
    assert told.count("sorted along it") == 2


def test_print_graph(networks):
    assert str(networks("towers").graph).splitlines() == [
        "group   width  exact  produced by  consumed by",
        "Conv_0      5  yes    Conv_0       Conv_1, Conv_3, Conv_4",
        "Conv_1      7  yes    Conv_1       Conv_4",
        "Conv_3      3  yes    Conv_3       Conv_2",
        "Conv_2      4  yes    Conv_2       Conv_4",
        "Conv_4      6  yes    Conv_4       Dense_0",
    ]


def test_layers_are_in_the_order_of_the_function(networks):
    assert networks("flatten").graph.layers == ("Conv_0", "Dense_0", "Dense_1")


# Masking


def test_mask_zeroes_producers_only(networks):
    network = networks("flatten")
    alive = np.arange(7) != 2
    masked = network.graph.mask(network.variables, {"Conv_0": alive})["params"]
    params = network.variables["params"]
    assert not np.any(masked["Conv_0"]["kernel"][..., 2])
    assert masked["Conv_0"]["bias"][2] == 0
    np.testing.assert_array_equal(
        masked["Conv_0"]["kernel"][..., alive], params["Conv_0"]["kernel"][..., alive]
    )
    np.testing.assert_array_equal(masked["Dense_0"]["kernel"], params["Dense_0"]["kernel"])


def test_mask_of_a_merged_axis(networks):
    network = networks("grouped")
    alive = {"Conv_0[3.0]": np.array([True, False, True]), "Conv_0[3.1]": np.arange(4) > 0}
    bias = network.graph.mask(network.variables, alive)["params"]["Conv_0"]["bias"]
    np.testing.assert_array_equal(bias != 0, [0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1])


def test_numbers_of_numpys_own_width_are_taken_as_jax_takes_them(rng):
    def fn(v, x):
        return jax.nn.sigmoid(x @ v["a"]) @ v["c"] + v["bias"].reshape(1, 3)

    shapes = {"a": (5, 7), "c": (7, 3), "bias": (3,)}
    variables = {name: rng.normal(size=shape) for name, shape in shapes.items()}  # float64
    graph = reg.trace_channels(fn, variables, np.ones((2, 5)))
    assert {variable.dtype for variable in graph.variables.values()} == {"float32"}
    folded = graph.fold(variables, {"a": np.arange(7) < 3})
    assert {leaf.dtype for leaf in jax.tree.leaves(folded)} == {np.dtype(np.float32)}
    bias = variables["bias"] + variables["c"][3:].sum(0) / 2.0
    np.testing.assert_allclose(folded["bias"], bias, rtol=1e-6)


# Mistakes


def test_variables_without_arrays():
    with pytest.raises(ValueError, match=r"hold no arrays; pass what .* model\.init\(\.\.\.\)"):
        reg.trace_channels(lambda v, x: x, {"params": {}}, struct(3))


@pytest.mark.parametrize("leaf", [1.5, "relu"])
def test_leaf_that_is_no_array(leaf):
    with pytest.raises(TypeError, match=rf"leaf 'params/b' of the variables is {leaf!r}, not an"):
        reg.trace_channels(lambda v, x: x, {"params": {"a": struct(3), "b": leaf}}, struct(3))


def test_output_that_does_not_depend_on_the_variables():
    def forgets(v, x):
        return 2.0 * x

    with pytest.raises(ValueError, match=r"not depend on any.*'.*forgets' with 1 arrays"):
        reg.trace_channels(forgets, {"a": struct(3)}, struct(3))


def test_function_that_cannot_be_traced():
    def branches(v, x):
        return v["a"] if x[0] > 0 else -v["a"]

    with pytest.raises(TypeError, match="traced array"):
        reg.trace_channels(branches, {"a": struct(3)}, struct(3))


def test_unknown_path_lists_near_matches(networks):
    graph = networks("flatten").graph
    with pytest.raises(
        KeyError, match=r"no variable, layer or group 'Dense_0/kernal'; did you mean .*"
    ):
        graph.explain("Dense_0/kernal")
    with pytest.raises(KeyError, match=r"did you mean 'Dense_0/kernel'|'params/Dense_0/kernel'"):
        graph.explain("Dense_0/kernal")
    with pytest.raises(KeyError, match=r"'zzz'; known are 'Conv_0', 'Dense_0', .*, \.\.\."):
        graph.explain("zzz")


def test_missing_variable(networks):
    network = networks("flatten")
    params = {k: v for k, v in network.variables["params"].items() if k != "Dense_1"}
    with pytest.raises(ValueError, match=r"'params/Dense_1/bias' is missing \(2 of 6 leaves are"):
        network.graph.mask({"params": params}, {})


def test_extra_variable(networks):
    network = networks("flatten")
    params = network.variables["params"] | {"Dense_2": {"kernel": jnp.ones((3, 3))}}
    wanted = r"'params/Dense_2/kernel' was not among .* did you mean 'params/Dense_1/kernel'"
    with pytest.raises(ValueError, match=wanted):
        network.graph.mask({"params": params}, {})


def test_misshapen_variable(networks):
    network = networks("flatten")
    params = network.variables["params"] | {
        "Dense_1": {"kernel": jnp.ones((11, 5)), "bias": jnp.ones(5)}
    }
    wanted = r"'params/Dense_1/bias' was traced with shape \[3\], found \[5\]"
    with pytest.raises(ValueError, match=wanted):
        network.graph.mask({"params": params}, {})


@pytest.mark.parametrize(
    ("alive", "found"),
    [
        (np.ones(5, bool), r"bool\[5\]"),
        (np.ones((7, 1), bool), r"bool\[7, 1\]"),
        (np.ones(7), r"float64\[7\]"),
        ([1, 0, 1, 1, 1, 1, 1], r"int64\[7\]"),
    ],
)
def test_alive_mask_that_does_not_fit(networks, alive, found):
    network = networks("flatten")
    wanted = rf"'Conv_0' has 7 channels: alive must be bool\[7\], found {found}"
    with pytest.raises(ValueError, match=wanted):
        network.graph.mask(network.variables, {"Conv_0": alive})


def test_alive_mask_of_an_unknown_group(networks):
    network = networks("flatten")
    with pytest.raises(KeyError, match=r"no channel group 'Conv_1'; did you mean 'Conv_0'\?"):
        network.graph.mask(network.variables, {"Conv_1": np.ones(7, bool)})


def test_near_without_any_known_name():
    assert graphs.near("a", []) == "; known are "
