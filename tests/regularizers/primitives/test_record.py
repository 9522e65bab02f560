"""What a record lacks is named, and what it does not read is pinned."""

import warnings
from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.soundness import compare
from jax import lax
from jax.extend.core import Primitive
from jax.extend.core import primitives as p
from jax.lax import linalg

import morph
import regularizers as reg
from regularizers.channels.inference import Inference
from regularizers.primitives import elementwise
from regularizers.primitives.flow import implied
from regularizers.primitives.record import FREE, Record, again, reads
from regularizers.primitives.signs import kept
from regularizers.primitives.table import OWN, RECORDS

N, K = 7, 3
PARTS = ("params", "sign", "price", "emission")


@pytest.fixture
def v(rng):
    shapes = {"a": (5, N), "b": (N, K), "c": (N, N)}
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.normal(size=(2, 5)), jnp.float32)


@pytest.fixture
def toy():
    """A primitive with parameters, and its record, for as long as the test."""
    toy_p = Primitive("toy")
    toy_p.def_abstract_eval(lambda x, **params: x)
    RECORDS[toy_p] = Record(
        couple=elementwise.couple,
        params=reads("size", mode="plain"),
        sign=kept,
        price=FREE,
        emission=again,
    )
    yield toy_p
    RECORDS.pop(toy_p, None)


def test_every_part_of_every_record_is_said():
    lacking = {own.name: RECORDS[own].lacks for own in OWN if RECORDS[own].lacks}
    assert lacking == {}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_was_forgotten_is_named(part):
    assert replace(RECORDS[p.dot_general_p], **{part: None}).lacks == (part,)


def test_a_record_of_a_rule_alone_lacks_the_rest():
    assert Record(couple=elementwise.couple).lacks == PARTS


def test_parameters_that_are_understood_keep_widths_free(toy, v, x):
    graph = reg.trace_channels(
        lambda v, x: toy.bind(x @ v["a"], size=3, mode="plain") @ v["b"], v, x
    )
    assert graph.widths == {"a": N}
    assert graph.groups["a"].exact


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"mode": "other"}, "toy with mode='other', which its rule does not read"),
        ({"size": 3, "turned": True}, "toy with turned=True, which its rule does not read"),
    ],
)
def test_a_parameter_that_nobody_reads_pins(toy, params, named, v, x):
    graph = reg.trace_channels(lambda v, x: toy.bind(x @ v["a"], **params) @ v["b"], v, x)
    assert graph.groups == {}
    assert named in graph.explain("a")


def destinations(fn, *shapes):
    """Where the axes of the operands of the last equation go, by its coupling."""
    structs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    eqn = jax.make_jaxpr(fn)(*structs).jaxpr.eqns[-1]
    return implied(RECORDS[eqn.primitive], eqn)


@pytest.mark.parametrize(
    ("fn", "shapes", "to"),
    [
        (jnp.matmul, ((2, 5), (5, 7)), [[(0,), ()], [(), (1,)]]),
        (lambda x: x.sum(1), ((2, 5, 7),), [[(0,), (), (1,)]]),
        (lambda x: x.reshape(2, 35), ((2, 5, 7),), [[(0,), (1,), (1,)]]),
        (lambda x: lax.reshape(x, (7, 10), (2, 0, 1)), ((2, 5, 7),), [[(1,), (1,), (0,)]]),
        (lambda x: lax.split(x, (3, 4), 1), ((2, 7),), [[(0,), (1,)]]),
        (lambda x: x.transpose(1, 2, 0), ((2, 5, 7),), [[(2,), (0,), (1,)]]),
        (
            lambda x, k: lax.conv_general_dilated(x, k, (1,), "SAME", feature_group_count=3),
            ((2, 6, 11), (9, 2, 5)),
            [[(0,), (1,), ()], [(1,), (), ()]],
        ),
    ],
)
def test_where_axes_go_follows_from_how_widths_couple(fn, shapes, to):
    assert destinations(fn, *shapes) == to


def test_the_engine_takes_its_records_as_an_argument():
    closed = jax.make_jaxpr(jnp.tanh)(jnp.zeros((5, 7)))
    inference = Inference(records={})
    inference.run(closed, [inference.fresh_axes((5, 7))])
    assert [primitive.name for primitive in inference.unknown] == ["tanh"]


# Work without a price.


def product(name="own_dot"):
    own_p = Primitive(name)
    own_p.def_abstract_eval(lambda a, b: jax.core.ShapedArray((a.shape[0], b.shape[1]), a.dtype))
    return own_p


def dot(solver, eqn, lhs, rhs):
    solver.unify(lhs[1], rhs[0])
    return [(lhs[0], rhs[1])]


@pytest.fixture
def own_dot():
    own_p = product()
    yield own_p
    RECORDS.pop(own_p, None)


def test_a_product_without_a_price_is_named_and_warned_of_once(own_dot, v, x):
    reg.couples(own_dot, zeros="any")(dot)
    graph = reg.trace_channels(lambda v, x: own_dot.bind(x @ v["a"], v["b"]), v, x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        cost = reg.flops(graph)
        reg.flops(graph)
    assert [str(w.message).split(":")[0] for w in caught] == ["own_dot has no price"]
    assert cost() == 2 * 2 * 5 * N
    rows = {row.layer: (row.detail, row.cost) for row in cost.table()}
    assert rows["own_dot"] == ("own_dot, not counted", 0.0)


def test_a_product_with_a_price_is_counted(own_dot, v, x):
    reg.couples(own_dot, zeros="any", price=lambda o: (*o.out, o.lhs[1]))(dot)
    graph = reg.trace_channels(lambda v, x: own_dot.bind(x @ v["a"], v["b"]), v, x)
    cost = reg.flops(graph)
    assert cost() == 2 * (2 * 5 * N) + 2 * (2 * N * K)
    assert cost({"a": 2}) == 2 * (2 * 5 * 2) + 2 * (2 * 2 * K)
    assert "own dot" in str(cost.table())
    (member,) = (m for m in graph.groups["a"].members if m.path == "b")
    assert member.kind == "kernel"
    assert member.consumes


def test_an_elementwise_primitive_of_ones_own_is_free(toy, v, x):
    RECORDS[toy] = replace(RECORDS[toy], price=None)
    graph = reg.trace_channels(lambda v, x: toy.bind(x @ v["a"], mode="plain") @ v["b"], v, x)
    assert reg.flops(graph)() == 2 * (2 * 5 * N) + 2 * (2 * N * K)


@pytest.mark.parametrize(
    ("name", "fn"),
    [
        ("own_dot", lambda v, x: product().bind(x @ v["a"], v["b"])),  # without any record
        ("cholesky", lambda v, x: (x @ v["a"]).sum() * jnp.linalg.cholesky(v["c"])),
    ],
)
def test_work_that_nobody_can_count_is_named(name, fn, v, x):
    graph = reg.trace_channels(fn, v, x)
    with pytest.warns(UserWarning, match=f"{name} has no price: its work is not counted"):
        cost = reg.flops(graph)
    assert f"{name}, not counted" in str(cost.table())


def test_the_symmetric_product(v, x):
    """Added as a newcomer would: one record, one row of `test_coupling`."""

    def fn(v, x):
        h = jnp.tanh(x @ v["a"]).T  # [N, 2]
        product = linalg.symmetric_product(h, jnp.zeros((N, N)), symmetrize_output=True)
        return (product @ v["b"]).sum(0)

    graph = reg.trace_channels(fn, v, x)
    assert graph.widths == {"a": N}
    assert graph.groups["a"].exact
    assert reg.flops(graph)() == 2 * (2 * 5 * N + N * N * 2 + N * N * K)
    alive = {"a": np.arange(N) % 3 > 0}
    masked, arch = graph.mask(v, alive), morph.shrink(graph, alive)
    small = morph.compact(fn, arch)(arch.take(masked), x)
    assert jnp.allclose(small, fn(masked, x), atol=1e-5)


# Powers.


@pytest.mark.parametrize(
    ("power", "exact"),
    [
        (lambda h: h**2.0, True),
        (lambda h: jnp.abs(h) ** 0.5, True),
        (
            lambda h: lax.pow(
                jnp.abs(h), np.linspace(1, 2, N, dtype=np.float32)[None].repeat(2, 0)
            ),
            True,
        ),
        (lambda h: lax.pow(h, np.arange(N, dtype=np.float32)[None].repeat(2, 0)), False),  # 0^0
        (lambda h: h**-1.5, False),
        (lambda h: lax.pow(h, lax.convert_element_type(np.float32(0.5), np.int32)), True),  # h^0
        (lambda h: h**3, True),
        (lambda h: lax.integer_pow(h, 0), True),
        (lambda h: h**-2, False),
        (lambda h: jnp.abs(h) ** 1.5, True),
        (lambda h: jnp.power(jnp.abs(h), 0.3), True),
        (lambda h: jnp.square(h) * jnp.sqrt(jnp.abs(h)) + jnp.cbrt(h), True),
        (lambda h: jnp.abs(h) ** jax.nn.softplus(h), True),  # 0^log(2)
        (lambda h: jnp.abs(h) ** (-jnp.abs(h)), True),  # 0^0
        (lambda h: jnp.abs(h) ** (-1.0 - jnp.abs(h)), False),
    ],
)
def test_a_power_above_zero_keeps_zero(power, exact, v, x):
    def fn(v, x):
        return power(x @ v["a"]).sum(1, keepdims=True)

    assert reg.trace_channels(fn, v, x).groups["a"].exact == exact
    if exact:
        assert compare(fn, v, x, gradients=False).values < 1e-5


def test_an_exponent_is_zeroed_with_its_channel(v, x):
    """0^0 = 1, for every dead channel."""

    def fn(v, x):
        return (jnp.abs(x @ v["a"]) ** v["c"][:2]).sum(1, keepdims=True)

    found = compare(fn, {**v, "c": jnp.abs(v["c"])}, x, gradients=False)
    assert found.resized == 2
    assert found.values < 1e-5


# A reshape that transposes first.


def test_an_ensemble_of_convolutions_keeps_the_widths_of_one(x):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3))(x))
            x = nn.relu(nn.Conv(6, (3, 3))(x))
            return nn.Dense(3)(x.mean((1, 2)))

    ensemble = nn.vmap(
        Net, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=4
    )()
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    v = ensemble.init(jax.random.key(0), x)
    graph = reg.trace_channels(ensemble.apply, v, x)
    assert sorted(graph.widths.values()) == [6, 8]
    alive = {name: np.arange(n) % 3 > 0 for name, n in graph.widths.items()}
    masked, arch = graph.mask(v, alive), morph.shrink(graph, alive)
    small = morph.compact(ensemble.apply, arch)(arch.take(masked), x)
    assert jnp.allclose(small, ensemble.apply(masked, x), atol=1e-5)


def test_a_factorized_kernel_is_transposed_before_it_is_reshaped(rng):
    w, z = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((8, 8), (8, 3)))
    x = jnp.asarray(rng.normal(size=(4, 8)), jnp.float32)

    def fn(v, x):
        return jnp.tanh(x @ jnp.reshape(v["w"], (8, 8), order="F")) @ v["z"]

    cores = morph.factorize(w, "io", "svd", 3).value
    expected = fn({"w": cores.dense(), "z": z}, x)
    assert jnp.allclose(morph.tensorized(fn)({"w": cores, "z": z}, x), expected, atol=1e-5)
