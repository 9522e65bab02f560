import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, primitives

from experiments import networks
from experiments.networks.layers import scaled
from experiments.networks.nnx_cnn import NNXCNN
from experiments.networks.resnet import ResNet

LINEN = sorted(set(networks.SEED_NETWORKS) - {"nnx_cnn"})
SHAPES = [(28, 28, 1), (7, 11, 5), (1, 1, 1)]  # others are trained and counted below


def abstract_init(name, input_shape=(32, 32, 3), num_classes=10, width=1.0):
    """Returns a Linen seed network, its abstract variables and an abstract image."""
    model = networks.build(name, input_shape=input_shape, num_classes=num_classes, width=width)
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), x), x


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def kernel_count(params):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(math.prod(leaf.shape) for path, leaf in leaves if path[-1].key == "kernel")


def contraction_flops(jaxpr):
    """Returns 2 x multiply-adds of all convolutions and matrix products, padding counted."""
    flops = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive is primitives.conv_general_dilated_p:
            kernel = eqn.invars[1].aval.shape
            out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
            out = eqn.outvars[0].aval.shape
            flops += 2 * math.prod(out) * math.prod(kernel) // out_features
        elif eqn.primitive is primitives.dot_general_p:
            (contracted, _), _ = eqn.params["dimension_numbers"]
            fan_in = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
            flops += 2 * math.prod(eqn.outvars[0].aval.shape) * fan_in
        for value in eqn.params.values():
            if isinstance(value, ClosedJaxpr):
                flops += contraction_flops(value.jaxpr)
            elif isinstance(value, Jaxpr):
                flops += contraction_flops(value)
    return flops


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", LINEN)
def test_linen_networks_return_logits(name, shape):
    model = networks.build(name, input_shape=shape, num_classes=7)
    x = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert logits.shape == (3, 7)


@pytest.mark.parametrize("name", LINEN)
def test_linen_networks_train(name):
    model, variables, x = abstract_init(name, (8, 8, 1))

    def step(variables, x, key):
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    logits, updates = jax.eval_shape(step, variables, x, jax.random.key(0))
    assert logits.shape == (1, 10)
    assert ("batch_stats" in updates) == (name not in ("lenet5", "mlp", "vit"))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nnx_cnn_returns_logits(shape):
    create = networks.build("nnx_cnn", input_shape=shape, num_classes=7)
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    x = jax.ShapeDtypeStruct((3, *shape), jnp.float32)
    assert nnx.eval_shape(lambda model, x: model(x), model, x).shape == (3, 7)


def test_nnx_cnn_switches_between_train_and_eval():
    model = NNXCNN((5, 7, 3), 2, (4, 3), rngs=nnx.Rngs(0))
    x = jax.device_put(np.random.default_rng(0).normal(size=(5, 5, 7, 3)).astype(np.float32))
    model.eval()
    np.testing.assert_array_equal(model(x), model(x))
    model.train()
    mean = np.asarray(model.norms[0].mean[...])
    assert not np.array_equal(model(x), model(x))  # dropout draws anew
    assert not np.array_equal(mean, model.norms[0].mean[...])


def test_mlp_parameter_count():
    _, variables, _ = abstract_init("mlp", (28, 28, 1))
    expected = 784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
    assert expected == 266_610
    assert count(variables["params"]) == expected


def test_lenet5_has_the_weights_of_the_papers():
    _, variables, _ = abstract_init("lenet5", (28, 28, 1))
    assert kernel_count(variables["params"]) == 500 + 25_000 + 400_000 + 5_000 == 430_500


def test_resnet8_parameter_count():
    _, variables, _ = abstract_init("resnet8")
    stem = 9 * 3 * 16 + 2 * 16
    first = 2 * (9 * 16 * 16 + 2 * 16)
    second = (9 * 16 * 32 + 64) + (9 * 32 * 32 + 64) + (16 * 32 + 64)
    third = (9 * 32 * 64 + 128) + (9 * 64 * 64 + 128) + (32 * 64 + 128)
    dense = 64 * 10 + 10
    assert stem + first + second + third + dense == 78_042
    assert count(variables["params"]) == 78_042


def test_resnet20_parameter_count():
    _, variables, _ = abstract_init("resnet20")
    stem = 9 * 3 * 16 + 2 * 16
    first = 6 * (9 * 16 * 16 + 2 * 16)
    second = (9 * 16 * 32 + 64) + 5 * (9 * 32 * 32 + 64) + (16 * 32 + 64)
    third = (9 * 32 * 64 + 128) + 5 * (9 * 64 * 64 + 128) + (32 * 64 + 128)
    dense = 64 * 10 + 10
    assert stem + first + second + third + dense == 272_474
    assert count(variables["params"]) == 272_474


def test_resnet_of_impossible_depth():
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    with pytest.raises(ValueError, match=r"6n \+ 2 \(8, 14, 20, ...\); got 18"):
        jax.eval_shape(ResNet(num_classes=2, depth=18).init, jax.random.key(0), x)


def test_inception_v2_counts():
    model, variables, x = abstract_init("inception_v2", (224, 224, 3), num_classes=1001)
    assert kernel_count(variables["params"]) == 11_168_408
    jaxpr = jax.make_jaxpr(model.apply)(variables, x)
    assert contraction_flops(jaxpr.jaxpr) == 3_869_716_480


def test_inception_concatenates_four_towers():
    _, variables, _ = abstract_init("inception")
    assert variables["params"]["Dense_0"]["kernel"].shape == (4 * 32, 10)


def test_cnn_flattens_before_its_dense_layer():
    _, variables, _ = abstract_init("cnn", (7, 11, 5))
    assert variables["params"]["Dense_0"]["kernel"].shape == (2 * 3 * 64, 128)


@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("mlp", "Dense_0", (64, 150)),
        ("cnn", "ConvNormRelu_2/Conv_0", (3, 3, 16, 32)),
        ("resnet8", "Block_2/Conv_0", (3, 3, 32, 32)),
        ("inception", "Towers_2/ConvNormRelu_0/Conv_0", (1, 1, 48, 16)),
        ("inception_v2", "Logits", (512, 10)),
    ],
)
def test_width_multiplier(name, path, shape):
    _, variables, _ = abstract_init(name, (8, 8, 1), width=0.5)
    node = variables["params"]
    for key in path.split("/"):
        node = node[key]
    assert node["kernel"].shape == shape


def test_width_multiplier_of_nnx_cnn():
    create = networks.build("nnx_cnn", input_shape=(8, 8, 1), num_classes=10, width=0.5)
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    assert [conv.out_features for conv in model.convs] == [8, 16, 32]


@pytest.mark.parametrize("name", LINEN)
def test_smallest_width_keeps_one_channel(name):
    _, variables, _ = abstract_init(name, (8, 8, 1), width=1e-6)
    assert min(min(leaf.shape) for leaf in jax.tree.leaves(variables["params"])) == 1
    assert scaled(64, 1e-6) == 1


def test_unknown_name_lists_near_matches():
    with pytest.raises(ValueError, match=r"'resnet21'; did you mean 'resnet20'"):
        networks.build("resnet21", input_shape=(8, 8, 1), num_classes=10)


def test_unknown_name_without_near_match():
    with pytest.raises(ValueError, match=r"'zzz'; known are 'mlp', 'lenet5', 'cnn'"):
        networks.build("zzz", input_shape=(8, 8, 1), num_classes=10)


@pytest.mark.parametrize(
    "wrong",
    [{"input_shape": (8, 8)}, {"input_shape": (8, 0, 1)}, {"num_classes": 0}, {"width": 0.0}],
    ids=str,
)
def test_impossible_sizes(wrong):
    sizes = {"input_shape": (8, 8, 1), "num_classes": 10, "width": 1.0} | wrong
    with pytest.raises(ValueError, match=r"mlp needs .* three positive sizes.*got input_shape="):
        networks.build("mlp", **sizes)
