"""What nobody should pass: each one clear error, or a right answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from regularizers.objective.penalties import PENALTIES

M, N, K = 5, 7, 3
KEEP = np.arange(N) > 2


def dense(v, x):
    return (x @ v["a"]) @ v["b"]


@pytest.fixture
def v(rng):
    shapes = {"a": (M, N), "b": (N, K)}
    return {k: jax.device_put(rng.normal(size=s).astype(np.float32)) for k, s in shapes.items()}


@pytest.fixture
def x():
    return jnp.ones((2, M))


# Functions that cannot be traced


def asks_a_branch(v, x):
    h = x @ v["a"]
    return (h * 2 if h.sum() > 0 else h) @ v["b"]


def asks_a_number(v, x):
    return (x @ v["a"])[: int(x[0, 0])] @ v["b"]


def leaves_jax(v, x):
    return np.asarray(x @ v["a"]) @ v["b"]


def selects_rows(v, x):
    return x[x[:, 0] > 0] @ v["a"] @ v["b"]


@pytest.mark.parametrize(
    ("fn", "cause"),
    [
        (asks_a_branch, "Attempted boolean conversion of traced array"),
        (asks_a_number, "Abstract tracer value encountered where concrete value is expected"),
        (leaves_jax, "numpy.ndarray conversion method"),
        (selects_rows, "Array boolean indices must be concrete"),
    ],
)
def test_python_code_that_depends_on_values(fn, cause, v, x):
    message = rf"cannot trace '{fn.__name__}'.*JAX says: .*{cause}.*Use jnp.where or jax.lax.cond"
    with pytest.raises(TypeError, match=message) as caught:
        reg.trace_channels(fn, v, x)
    assert caught.value.__cause__ is not None  # with JAX's own account of where
    arch = morph.shrink(reg.trace_channels(dense, v, x), {"a": KEEP})
    with pytest.raises(TypeError, match=message):
        morph.compact(fn, arch)(arch.take(v), x)


def test_a_value_that_python_needs_may_be_passed_as_a_keyword(v, x):
    def fn(v, x, rows):
        return (x @ v["a"])[:rows] @ v["b"]

    assert reg.trace_channels(fn, v, x, rows=1).widths == {"a": N}


def test_what_is_wrong_with_the_function_itself_is_said_by_jax(v):
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        reg.trace_channels(dense, v)
    with pytest.raises(TypeError, match="contracting dimensions to have the same shape"):
        reg.trace_channels(dense, v, jnp.ones((2, M + 1)))


# Variables


class WithoutShape:
    dtype = jnp.float32


@pytest.mark.parametrize("leaf", ["relu", 1.0, 3, True, WithoutShape(), jnp.tanh])
def test_leaves_that_are_not_arrays(leaf, v, x):
    message = r"leaf 'c' of the variables is .*, not an array with a shape and dtype"
    with pytest.raises(TypeError, match=message):
        reg.trace_channels(dense, v | {"c": leaf}, x)
    arch = morph.shrink(reg.trace_channels(dense, v, x), {"a": KEEP})
    with pytest.raises(TypeError, match=message):
        morph.compact(dense, arch)(arch.take(v) | {"c": leaf}, x)


def test_none_is_no_leaf(v, x):
    assert reg.trace_channels(dense, v | {"c": None}, x).widths == {"a": N}


@pytest.mark.parametrize("variables", [{}, [], None, {"params": {}}])
def test_no_variables(variables, x):
    with pytest.raises(ValueError, match=r"the variables hold no arrays; pass what the function"):
        reg.trace_channels(lambda v, x: x, variables, x)


@pytest.mark.parametrize("output", [lambda x: x, lambda x: None, lambda x: {}, lambda x: ()])
def test_outputs_that_are_none_or_do_not_depend_on_the_variables(output, v, x):
    with pytest.raises(ValueError, match=r"the output does not depend on any of the variables"):
        reg.trace_channels(lambda v, x: output(x), v, x)


def test_outputs_that_are_no_arrays_are_passed_over(v, x):
    graph = reg.trace_channels(lambda v, x: (dense(v, x), None, 3.0), v, x)
    assert graph.widths == {"a": N}
    arch = morph.shrink(graph, {"a": KEEP})
    y, none, number = morph.compact(lambda v, x: (dense(v, x), None, 3.0), arch)(arch.take(v), x)
    assert y.shape == (2, K)
    assert (none, float(number)) == (None, 3.0)


# Axes of no length


def test_an_empty_batch(v, x):
    empty = jnp.ones((0, M))
    graph = reg.trace_channels(dense, v, empty)
    assert graph.widths == {"a": N}
    assert graph.groups["a"].exact
    assert reg.flops(graph)() == 0.0
    with pytest.raises(ValueError, match=r"the seed's cost must be positive, found 0.0"):
        reg.NetworkRegularizer(graph, reg.flops(graph))
    arch = morph.shrink(graph, {"a": KEEP})
    small = morph.compact(dense, arch)
    assert small(arch.take(v), empty).shape == (0, K)
    masked = graph.mask(v, {"a": KEEP})
    np.testing.assert_allclose(small(arch.take(masked), x), dense(masked, x), rtol=1e-5, atol=1e-5)


def test_a_layer_of_no_width(x):
    """Nothing can be removed from it, and it costs nothing."""
    v = {"a": jnp.ones((M, 0)), "b": jnp.ones((0, K))}
    graph = reg.trace_channels(dense, v, x)
    assert graph.widths == {}
    assert reg.flops(graph)() == 0.0
    assert "axis 1: 0, fixed: size 0" in graph.explain("a")
    arch = morph.shrink(graph, {})
    np.testing.assert_array_equal(morph.compact(dense, arch)(arch.take(v), x), jnp.zeros((2, K)))


def test_an_input_of_no_width():
    v = {"a": jnp.ones((0, N)), "b": jnp.ones((N, K))}
    x = jnp.ones((2, 0))
    graph = reg.trace_channels(dense, v, x)
    arch = morph.shrink(graph, {"a": KEEP})
    assert arch.widths == {"a": 4}
    np.testing.assert_array_equal(morph.compact(dense, arch)(arch.take(v), x), jnp.zeros((2, K)))


def test_all_channels_dead(v, x):
    arch = morph.shrink(reg.trace_channels(dense, v, x), {"a": np.zeros(N, bool)})
    assert arch.widths == {"a": 1}  # min_width


# Numbers


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("l1_share", [0.0, 0.5])
def test_strengths_do_not_overflow(dtype, l1_share, x):
    """The square of 60000 is no float16, nor is the sum of seven of them."""
    v = {"a": jnp.full((M, N), 6e4, dtype), "b": jnp.full((N, K), 6e4, dtype)}
    graph = reg.trace_channels(dense, v, x.astype(dtype))
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph), l1_share=l1_share)
    strength = regularizer.strengths(v)["a"]
    assert strength.dtype == jnp.float32
    np.testing.assert_allclose(strength, 6e4, rtol=1e-2)
    assert np.isfinite(regularizer(v))
    slopes = jax.grad(regularizer)(v)
    assert all(np.isfinite(slope).all() for slope in slopes.values())
    tiny = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-4), v)  # the square is zero in float16
    np.testing.assert_allclose(regularizer.strengths(tiny)["a"], 1e-4, rtol=1e-2)


def test_every_penalty_is_covered_here_or_needs_a_scale():
    assert set(PENALTIES) == {"group_lasso", "gamma", "gates"}


def test_a_weight_that_is_not_a_number_shows(v, x):
    graph = reg.trace_channels(dense, v, x)
    regularizer = reg.NetworkRegularizer(graph, reg.flops(graph))
    broken = v | {"a": v["a"].at[0, 1].set(jnp.nan)}
    np.testing.assert_array_equal(np.isnan(regularizer.strengths(broken)["a"]), np.arange(N) == 1)
    assert np.isnan(regularizer(broken))  # it reaches the loss, where training stops


def test_masking_removes_what_is_not_a_number(v, x):
    graph = reg.trace_channels(dense, v, x)
    broken = v | {"a": v["a"].at[0, 1].set(jnp.nan)}
    masked = graph.mask(broken, {"a": np.arange(N) != 1})
    np.testing.assert_array_equal(masked["a"][:, 1], 0.0)
    assert np.isfinite(dense(masked, x)).all()


# Keyword arguments of the function that the library uses itself


def test_keywords_of_the_library_are_not_handed_on(v, x):
    """`prunable` and `pinned` are patterns; bind such an argument of your own before."""
    seen = []

    def fn(v, x, pinned="mine"):
        seen.append(pinned)
        return dense(v, x)

    assert reg.trace_channels(fn, v, x, pinned="a").widths == {}
    assert set(seen) == {"mine"}
