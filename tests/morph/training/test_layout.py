"""Where arrays lie: rules, what the model says, what is even, and what is refused."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from eight_devices import report_of
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import morph
import regularizers as reg
from morph.errors import MeshError
from morph.training import layout as lay
from morph.training.layout import Layout, mesh_named, rules_named
from morph.training.step import TrainState

MESH = AbstractMesh((4, 2), ("fsdp", "tensor"))
SHAPES = {"a": {"kernel": (8, 130), "bias": (130,)}, "b": {"kernel": (130, 12), "bias": (12,)}}
RULES = "a/kernel=fsdp:tensor,a/bias=tensor,b=-"


def abstract(shapes):
    def leaf(shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    return {"params": jax.tree.map(leaf, shapes, is_leaf=lambda s: isinstance(s, tuple))}


def layout_of(rules, mesh=MESH, shapes=SHAPES):
    return Layout.of(mesh, rules_named(rules), abstract(shapes))


def test_the_first_rule_that_matches_wins_and_names_the_last_axes():
    layout = layout_of(
        "a/bias=-,a=fsdp:tensor,*/kernel=-:fsdp+tensor",
        shapes={
            "a": {"kernel": (3, 8, 130), "bias": (130,), "scale": (6,)},
            "b": {"kernel": (130, 16), "bias": (12,)},
        },
    )
    assert layout.spec("params/a/bias", (130,)) == P(None)
    assert layout.spec("params/a/kernel", (3, 8, 130)) == P(None, ("fsdp",), ("tensor",))
    assert layout.spec("params/a/scale", (6,)) == P(("tensor",))
    assert layout.spec("params/b/kernel", (130, 16)) == P(None, ("fsdp", "tensor"))


def test_without_a_rule_large_arrays_are_divided_along_their_longest_even_axis():
    layout = Layout(mesh=MESH)
    assert layout.spec("params/a", (12, 90)) == P("fsdp")  # 90 is not even
    assert layout.spec("params/a", (3, 12, 64)) == P(None, None, "fsdp")
    assert layout.spec("params/a", (1000,)) == P()  # small
    assert layout.spec("params/a", (33, 65)) == P()
    assert Layout(mesh=AbstractMesh((8,), ("data",))).spec("params/a", (64, 64)) == P()


def test_what_shrinks_to_an_odd_width_lies_whole_along_that_axis():
    assert layout_of(RULES).spec("params/a/kernel", (6, 4)) == P(None, ("tensor",))
    assert layout_of(RULES).spec("params/a/kernel", (0, 3)) == P(None, None)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("c=fsdp", "shard='c' matches no layer or variable"),
        ("a/kernel=fsdp:tensr", "over 'tensr', which is no axis of the mesh.*'tensor'"),
        ("a/kernel=fsdp:fsdp", "divided twice over 'fsdp'"),
        ("a/kernel=-:fsdp", r"'params/a/kernel' is \[8, 130\]: its axis 1 .*fsdp = 4 devices"),
        ("a/kernel=fsdp", r"its axis 1 cannot be divided evenly"),
        ("a/kernel=fsdp:-", "no variable is divided over tensor=2; name some"),
        ("a/kernel", "'a/kernel' is not PATTERN=VALUE"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, words):
    with pytest.raises((MeshError, ValueError), match=words):
        layout_of(rules)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data=3", r"mesh='data=3' is of 3 = 3 devices, but there are \d+; .* multiply to"),
        ("data=2,fsdp=64", r"2 x 64 = 128 devices, but"),
        ("fdsp=1", "there is no axis 'fdsp'.*'fsdp'"),
        ("data=0", "data must be at least 1"),
        ("data", "is not a mesh; write e.g. data=4,fsdp=2"),
        ("data=1,data=1", "is not a mesh; .* each axis once"),
        (",", "is not a mesh; write e.g. data=4,fsdp=2"),
    ],
)
def test_meshes_that_make_no_sense_are_refused(text, words):
    with pytest.raises(MeshError, match=words):
        mesh_named(text)


def test_a_mesh_is_made_of_all_devices():
    count = jax.device_count()
    assert dict(mesh_named(f"data={count},fsdp=1").shape) == {"data": count, "fsdp": 1}
    assert dict(mesh_named("").shape) == {"data": count}


def test_a_model_says_itself_how_it_is_divided():
    def boxed(names):
        return nn.with_partitioning(nn.initializers.ones, names)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(8, name="a", kernel_init=boxed(("fsdp", "tensor")))(x)
            logical = nn.with_logical_partitioning(nn.initializers.ones, ("in", "heads"))
            return nn.Dense(4, name="b", kernel_init=logical)(x)

    variables = jax.eval_shape(Net().init, jax.random.key(0), jnp.ones((2, 4)))
    with nn.logical_axis_rules([("in", None), ("heads", "tensor")]):
        layout = Layout.of(MESH, {}, variables)
    assert layout.spec("params/a/kernel", (4, 8)) == P(("fsdp",), ("tensor",))
    assert layout.spec("params/b/kernel", (8, 4)) == P(None, ("tensor",))
    over = Layout.of(MESH, rules_named("a/kernel=-:tensor"), variables)
    assert over.spec("params/a/kernel", (4, 8)) == P(None, ("tensor",))
    assert not Layout.of(AbstractMesh((8,), ("data",)), {}, variables).divides


def test_an_nnx_model_says_so_by_its_metadata():
    def boxed(*names):
        return nnx.with_partitioning(nnx.initializers.ones, names)

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.a = nnx.Linear(4, 8, kernel_init=boxed("fsdp", "tensor"), rngs=rngs)
            self.b = nnx.Linear(8, 2, kernel_init=boxed("tensor", None), rngs=rngs)

        def __call__(self, x):
            return self.b(nnx.relu(self.a(x)))

    network, x = morph.nnx_network(Net), jnp.ones((2, 4))
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    layout = Layout.of(MESH, {}, variables)
    assert layout.spec("params/a/kernel", (4, 8)) == P(("fsdp",), ("tensor",))
    assert layout.spec("params/b/kernel", (8, 2)) == P(("tensor",), None)
    assert layout.spec("params/a/bias", (8,)) == P()
    graph = reg.trace_channels(network.predict, variables, x)
    assert (graph.widths, layout.round_to(graph)) == ({"a": 8}, 2)
    outputs, updates = jax.eval_shape(network.forward, variables, x, jax.random.key(0))
    assert (outputs.shape, updates) == ((2, 2), {})


def test_optimizers_keep_what_they_keep_where_the_parameter_lies():
    mesh = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tensor"))
    rng = np.random.default_rng(0)
    v = {"params": {"a": rng.normal(size=(4, 6)), "b": rng.normal(size=(6, 2))}}
    graph = reg.trace_channels(
        lambda v, x: x @ v["params"]["a"] @ v["params"]["b"], v, jnp.ones((2, 4))
    )
    tx = reg.proximal(optax.adam(0.1), reg.NetworkRegularizer(graph, reg.flops(graph)), 0.1)
    network = morph.Network(init=None or len, predict=len, forward=len)
    state = TrainState.of(network, v, tx, averages=True)
    layout = Layout(mesh=mesh, rules=rules_named("a=fsdp:tensor,b=tensor:-"))
    laid = layout.state(state)
    a = NamedSharding(mesh, P(("fsdp",), ("tensor",)))
    adam = laid.opt_state.inner[0]
    for tree in (laid.params, adam.mu, adam.nu, laid.ema["params"]):
        assert tree["a"].sharding == a
        assert tree["b"].sharding == NamedSharding(mesh, P(("tensor",), None))
    assert laid.opt_state.saliency["a"].sharding == NamedSharding(mesh, P())
    assert laid.step.sharding == adam.count.sharding == NamedSharding(mesh, P())


def test_widths_are_rounded_to_what_divided_channels_need():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(24, name="a")(x))
            return nn.Dense(4, name="b")(nn.relu(nn.Dense(36, name="wide")(x)))

    x = jnp.ones((2, 8))
    variables = jax.eval_shape(Net().init, jax.random.key(0), x)
    graph = reg.trace_channels(Net().apply, variables, x)

    def round_to(rules):
        return Layout.of(MESH, rules_named(rules), variables).round_to(graph)

    assert round_to("a/kernel=-:tensor") == 2
    assert round_to("a/kernel=tensor:-,b/kernel=fsdp:-") == 4  # inputs and outputs may be uneven
    assert round_to("a/kernel=-:fsdp+tensor") == 8
    assert Layout(mesh=AbstractMesh((8,), ("data",))).round_to(graph) == 1


def test_what_would_be_odd_is_made_whole_before_it_is_taken():
    mesh = Mesh(np.asarray(jax.devices()[:1]), ("fsdp",))
    rng = np.random.default_rng(0)
    v = {"a": rng.normal(size=(4, 6)), "b": rng.normal(size=(6, 2))}
    v = jax.tree.map(lambda leaf: leaf.astype(np.float32), v)
    graph = reg.trace_channels(lambda v, x: x @ v["a"] @ v["b"], v, jnp.ones((2, 4)))
    arch = morph.shrink(graph, {"a": np.arange(6) < 3})
    there = jax.device_put(v, {"a": NamedSharding(mesh, P(None, "fsdp")), "b": jax.devices()[0]})
    moved = lay.even_after(arch, there)
    assert moved["a"].sharding == NamedSharding(mesh, P(None, "fsdp"))  # one device divides all
    jax.tree.map(np.testing.assert_array_equal, arch.take(moved), arch.take(v))


@pytest.fixture(scope="module")
def run():
    """The report of `mesh_run.py`."""
    return report_of("mesh_run.py")


def test_a_divided_network_is_trained_and_cut_as_on_one_device(run):
    one, eight = run["one"], run["eight"]
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=1e-5)
    assert eight["kept"] == one["kept"]
    assert len(one["kept"]["gate"]) % 4 == 0 < len(one["kept"]["gate"]) < 64
    np.testing.assert_allclose(eight["small"], one["small"], rtol=1e-5)
    assert eight["share"] == eight["share_after"] == 1 / 8


def test_a_checkpoint_goes_on_on_half_the_devices_and_divided_otherwise(run):
    np.testing.assert_allclose(run["four"]["losses"], run["eight"]["losses"][2:], rtol=1e-5)
    np.testing.assert_allclose(run["fsdp"]["losses"], run["eight"]["losses"][3:], rtol=1e-5)
    assert 0.5 < run["four"]["share"] < 0.8  # most of so small a network lies whole
    assert run["fsdp"]["share"] < run["four"]["share"]


def test_memory_falls_with_the_number_of_devices(run):
    one, eight = run["compiled"]["one"], run["compiled"]["regularized"]
    assert eight["state"] < 1.15 * one["state"] / 8
    assert eight["peak"] < 1.15 * one["peak"] / 8


def test_a_regularized_step_adds_one_exchange_of_vectors_of_channels(run):
    plain, regularized = (run["compiled"][name]["moved"] for name in ("plain", "regularized"))
    left = [one for one in regularized if one not in plain or plain.remove(one)]
    assert {kind for kind, _ in plain} <= {"all-gather"}  # of which there are rather less
    channels = run["compiled"]["channels"]
    ((kind, (vectors,)),) = left
    assert kind == "all-reduce"
    assert channels < vectors < 10 * channels


def test_what_rounding_leaves_owed_is_one_more_exchange_and_the_same_on_one_device(run):
    eight, one = run["halved"]["eight"], run["halved"]["one"]
    assert [kind for kind, _ in eight["moved"]] == ["all-reduce"] * 2
    ((owed, other),) = zip(one["owed"].values(), eight["owed"].values(), strict=True)
    assert len(owed) == 64
    assert np.abs(owed).min() > 0.0
    np.testing.assert_allclose(other, owed, rtol=1e-3, atol=1e-7)
