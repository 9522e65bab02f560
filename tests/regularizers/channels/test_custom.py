"""Primitives of the user's own: `reg.couples` and `morph.emits`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive
from jax.extend.core.primitives import iota_p, jit_p, tanh_p
from jax.interpreters import mlir

import morph
import regularizers as reg
from regularizers.errors import InputError
from regularizers.primitives.table import RECORDS

M, N, K = 5, 7, 3
KEEP = np.asarray([True, False, True, False, False, True, True])


@pytest.fixture(autouse=True)
def tables():
    """The table is as it was, after each test."""
    before = RECORDS.copy()
    yield
    RECORDS.clear()
    RECORDS.update(before)


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (N, K)}
    return {k: jax.device_put(rng.normal(size=s).astype(np.float32)) for k, s in shapes.items()}


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(2, M)).astype(np.float32))


def primitive(name, impl, shape=lambda *avals, **params: avals[0].shape):
    """A new primitive that does what `impl` does."""
    new = Primitive(name)
    new.def_impl(impl)

    def abstract(*avals, **params):
        return jax.core.ShapedArray(shape(*avals, **params), avals[0].dtype)

    new.def_abstract_eval(abstract)
    mlir.register_lowering(new, mlir.lower_fun(impl, multiple_results=False))
    return new


def elementwise(solver, eqn, *operands):
    for other in operands[1:]:
        for a, b in zip(operands[0], other, strict=True):
            solver.unify(a, b)
    return [operands[0]]


def difference(fn, v, x):
    """How far compact is from masked, and from the seed, where all free groups shrink."""
    graph = reg.trace_channels(fn, v, x)
    arch = morph.shrink(graph, {"a": KEEP}, inexact=True)
    assert arch.widths == {"a": KEEP.sum()}
    masked = graph.mask(v, {"a": KEEP})
    small = jax.jit(morph.compact(fn, arch))(arch.take(masked), x)
    return float(jnp.abs(small - fn(masked, x)).max())


def test_without_a_rule_all_that_it_touches_is_pinned_and_reported(v, x):
    own_p = primitive("own_act", jnp.sin)
    graph = reg.trace_channels(lambda v, x: own_p.bind(x @ v["a"]) @ v["b"], v, x)
    assert graph.groups == {}
    assert list(graph.unknown) == ["own_act"]
    assert "test_custom.py" in graph.unknown["own_act"]
    assert "touched by own_act, for which there is no rule" in graph.explain("a")
    assert "no rule for own_act: all that it touches is pinned" in str(graph)


@pytest.mark.parametrize(
    ("zeros", "impl", "exact"),
    [("all", jnp.sin, True), (None, jnp.cos, False)],
)
def test_an_elementwise_primitive(zeros, impl, exact, v, x):
    own_p = primitive("own_act", impl)
    assert reg.couples(own_p, zeros=zeros)(elementwise) is elementwise

    def fn(v, x):
        h = x @ v["a"]
        return own_p.bind(h).sum(1, keepdims=True) + h @ v["b"]

    graph = reg.trace_channels(fn, v, x)
    assert graph.widths == {"a": N}
    assert graph.unknown == {}
    assert graph.groups["a"].exact == exact
    assert (difference(fn, v, x) < 1e-5) == exact


def test_sums_are_zero_where_all_operands_are_and_products_where_one_is(v, x):
    own_add = primitive("own_add", jnp.add)
    own_mul = primitive("own_mul", jnp.multiply)
    reg.couples(own_add, zeros="all")(elementwise)
    reg.couples(own_mul, zeros="any")(elementwise)

    def added(v, x):
        h = x @ v["a"]
        return own_add.bind(h, jnp.exp(h)).sum(1, keepdims=True) + h @ v["b"]

    def multiplied(v, x):
        h = x @ v["a"]
        return own_mul.bind(h, jnp.exp(h)).sum(1, keepdims=True) + h @ v["b"]

    assert not reg.trace_channels(added, v, x).groups["a"].exact
    assert reg.trace_channels(multiplied, v, x).groups["a"].exact
    assert difference(multiplied, v, x) < 1e-5


def test_a_primitive_that_sums_a_group_away_consumes_it(v, x):
    own_dot = primitive("own_dot", jnp.matmul, lambda a, b: (a.shape[0], b.shape[1]))

    @reg.couples(own_dot, zeros="any")
    def dot(solver, eqn, lhs, rhs):
        solver.unify(lhs[1], rhs[0])
        return [(lhs[0], rhs[1])]

    def exact(v, x):
        return own_dot.bind(jnp.sin(x @ v["a"]), v["b"])

    def inexact(v, x):
        return own_dot.bind(jnp.cos(x @ v["a"]), jnp.exp(v["b"]))

    graph = reg.trace_channels(exact, v, x)
    assert graph.widths == {"a": N}
    assert graph.groups["a"].exact
    assert difference(exact, v, x) < 1e-5
    group = reg.trace_channels(inexact, v, x).groups["a"]
    assert not group.exact
    assert "where own_dot consumes them" in group.why_inexact


def test_a_primitive_with_sizes_among_its_parameters(v, x):
    own_tile = primitive(
        "own_repeat",
        lambda h, *, shape: jnp.broadcast_to(h[:, :1], shape),
        lambda h, *, shape: shape,
    )

    @reg.couples(own_tile)
    def couple(solver, eqn, h):
        solver.pin(h[1], "only its first position is read")
        return [(h[0], solver.fresh(eqn.params["shape"][1]))]

    def fn(v, x):
        return (own_tile.bind(x, shape=(2, N)) * (x @ v["a"])) @ v["b"]

    with pytest.raises(TypeError, match="incompatible shapes"):
        difference(fn, v, x)  # the parameter still says the seed's

    @morph.emits(own_tile)
    def emit(step, sizes):
        return {"shape": sizes.shape(step.results[0])}

    assert reg.trace_channels(fn, v, x).groups["a"].exact
    assert difference(fn, v, x) < 1e-5


def test_a_rule_is_registered_once_and_for_primitives_of_ones_own():
    own_p = primitive("own_act", jnp.sin)
    reg.couples(own_p)(elementwise)
    morph.emits(own_p)(lambda step, sizes: {})
    with pytest.raises(ValueError, match="own_act has a rule already; a rule is registered once"):
        reg.couples(own_p)
    with pytest.raises(ValueError, match="own_act has a rule already"):
        morph.emits(own_p)
    with pytest.raises(ValueError, match="tanh has a rule already"):
        reg.couples(tanh_p)
    with pytest.raises(ValueError, match="jit has a rule already"):
        reg.couples(jit_p)
    with pytest.raises(ValueError, match="iota has a rule already"):
        morph.emits(iota_p)


def test_how_a_primitive_is_emitted_needs_how_it_couples_first():
    with pytest.raises(InputError, match=r"lone has no coupling rule, .* first, with reg\.couples"):
        morph.emits(primitive("lone", jnp.sin))


def test_an_unknown_kind_of_zeros_is_refused():
    with pytest.raises(ValueError, match="zeros must be 'all', 'any' or None, found 'some'"):
        reg.couples(Primitive("own_act"), zeros="some")
