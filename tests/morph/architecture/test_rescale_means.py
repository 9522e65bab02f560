"""Means at the seed's width, or at their own: `rescale_means` and `Architecture.mean_widths`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg
from morph.architecture.architecture import Architecture
from morph.architecture.shrink import shrink

M, N, K = 5, 9, 3
KEEP = np.asarray([True, False, True, True, False, False, True, True, False])  # 5 of 9
WIDTH = int(KEEP.sum())


@pytest.fixture
def v(rng):
    return {
        k: jax.device_put(rng.normal(size=s).astype(np.float32))
        for k, s in {"a": (M, N), "b": (N, K)}.items()
    }


@pytest.fixture
def x(rng):
    return jax.device_put(rng.normal(size=(4, M)).astype(np.float32))


def rms(h):
    return jnp.sqrt(jnp.square(h).mean(1))


TOTALS = {
    "mean": lambda h: h.mean(1),
    "var": lambda h: h.var(1),
    "ddof": lambda h: h.var(1, ddof=1),
    "std": lambda h: h.std(1),
    "rms": rms,
    "factor": lambda h: h.sum(1) * (1.0 / N),
    "by hand": lambda h: jnp.square(h - (h.sum(1) / N)[:, None]).sum(1) / (N - 1),
    "normalised": lambda h: jnp.abs(nn.standardize(h, axis=1)).mean(1),
    "two axes": lambda h: jnp.square(h).mean((0, 1))[None],
    "nested": lambda h: jnp.square(h - h.mean(1, keepdims=True)).mean(1).mean(0)[None],
    "in a loop": lambda h: jax.lax.scan(
        lambda c, _: (c + h.mean(1), None), jnp.zeros(len(h)), None, 3
    )[0],
}
# The same functions as they are written at the small width.
AT_WIDTH = TOTALS | {
    "factor": lambda h: h.sum(1) * (1.0 / WIDTH),
    "by hand": lambda h: jnp.square(h - (h.sum(1) / WIDTH)[:, None]).sum(1) / (WIDTH - 1),
}


def network(total):
    return lambda v, x: (total(x @ v["a"]), (x @ v["a"]) @ v["b"])


@pytest.fixture
def arch(v, x):
    return shrink(reg.trace_channels(network(TOTALS["mean"]), v, x), {"a": KEEP})


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", TOTALS)
def test_rescaled_it_is_the_network_that_is_written_at_the_new_width(name, arch, v, x):
    fn = network(TOTALS[name])
    taken = arch.take(v)
    found = morph.compact(fn, arch, rescale_means=True)(taken, x)
    assert_equal(found, network(AT_WIDTH[name])(taken, x))


@pytest.mark.parametrize("name", [name for name in TOTALS if name != "normalised"])
@pytest.mark.promotes
def test_without_it_the_function_stays_the_masked_one(name, arch, v, x):
    fn = network(TOTALS[name])
    masked = {"a": v["a"] * KEEP[None], "b": v["b"]}
    expected = fn(masked, x)
    assert_equal(morph.compact(fn, arch)(arch.take(masked), x), expected)
    rescaled = morph.compact(fn, arch, rescale_means=True)(arch.take(masked), x)
    assert not np.allclose(rescaled[0], expected[0], rtol=0.01)


def test_group_norm_of_linen(rng):
    class Net(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            x = nn.GroupNorm(num_groups=3)(nn.Conv(3 * self.width, (1, 1))(x))
            return nn.Dense(K)(nn.relu(x).mean((1, 2)))

    x = jax.device_put(rng.normal(size=(2, 4, 4, M)).astype(np.float32))
    variables = jax.jit(Net(4).init)(jax.random.key(0), x)
    graph = reg.trace_channels(Net(4).apply, variables, x)
    (inner,) = (name for name, width in graph.widths.items() if width == 4)
    arch = shrink(graph, {inner: np.asarray([True, False, True, False])})
    small = morph.compact(Net(4).apply, arch, rescale_means=True)
    taken = arch.take(variables)
    np.testing.assert_allclose(small(taken, x), Net(2).apply(taken, x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("number", [4.0, 3.0, 2.0, 100.0])
def test_other_divisors_of_a_sum_stay(number, arch, v, x):
    """A temperature, and n of another axis: here of the batch and of the outputs."""
    fn = network(lambda h: h.sum(1) / number)
    taken = arch.take(v)
    assert_equal(morph.compact(fn, arch, rescale_means=True)(taken, x), fn(taken, x))


def test_a_mean_over_another_axis_of_the_same_length_stays(rng):
    v = {
        k: jax.device_put(rng.normal(size=s).astype(np.float32))
        for k, s in {"a": (M, N), "b": (N, K)}.items()
    }
    x = jax.device_put(rng.normal(size=(N, M)).astype(np.float32))  # as many examples as channels

    def fn(v, x):
        h = x @ v["a"]
        return h.mean(0) @ v["b"], (h - h.mean(0, keepdims=True)) @ v["b"]

    arch = shrink(reg.trace_channels(fn, v, x), {"a": KEEP})
    taken = arch.take(v)
    assert_equal(morph.compact(fn, arch, rescale_means=True)(taken, x), fn(taken, x))


# The widths that an architecture counts


class Normed(nn.Module):
    """What has means over its own width."""

    width: int

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Dense(self.width, name="into")(x))
        return nn.Dense(K, name="out")(nn.relu(x))


@pytest.fixture
def normed(x):
    variables = jax.jit(Normed(N).init)(jax.random.key(0), x)
    graph = reg.trace_channels(Normed(N).apply, variables, x)
    return graph, variables, shrink(graph, {"into": KEEP})


def test_shrinking_counts_the_seeds_width(normed):
    _, _, arch = normed
    assert (arch.widths, arch.mean_widths) == ({"into": WIDTH}, {"into": N})


def test_a_fresh_expansion_counts_its_own_width(normed, x):
    graph, _, arch = normed
    wide = morph.expand(arch, reg.flops(graph), reg.flops(graph)({"into": 13}))
    assert wide.widths == wide.mean_widths == {"into": 13}
    drawn = morph.init(Normed(N).init, wide, jax.random.key(1), x)
    found = morph.compact(Normed(N).apply, wide)(drawn, x)
    np.testing.assert_allclose(found, Normed(13).apply(drawn, x), rtol=2e-5, atol=2e-5)


def test_a_warm_expansion_counts_the_seeds_width(normed):
    graph, _, arch = normed
    wide = morph.expand(arch, reg.flops(graph), reg.flops(graph)({"into": 13}), warm=True)
    assert (wide.widths, wide.mean_widths) == ({"into": 13}, {"into": N})


def test_shrinking_after_a_fresh_expansion_counts_the_expanded_width(normed, x):
    """The cycle: shrink, expand, draw, and shrink again."""
    graph, _, arch = normed
    wide = morph.expand(arch, reg.flops(graph), reg.flops(graph)({"into": 13}))
    drawn = morph.init(Normed(N).init, wide, jax.random.key(1), x)
    fn = morph.compact(Normed(N).apply, wide)
    second = reg.trace_channels(fn, drawn, x)
    alive = {"into": np.arange(13) % 4 != 0}
    again = shrink(second, alive)
    masked = second.mask(drawn, alive)
    chained = wide.then(again)
    assert (chained.widths, chained.mean_widths) == ({"into": 9}, {"into": 13})
    expected = Normed(13).apply(masked, x)
    for small in (morph.compact(fn, again), morph.compact(Normed(N).apply, chained)):
        found = small(again.take(masked), x)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_json_keeps_the_counted_widths(normed, tmp_path):
    graph, _, arch = normed
    wide = morph.expand(arch, reg.flops(graph), reg.flops(graph)({"into": 13}))
    for one in (arch, wide):
        one.save(tmp_path / "architecture.json")
        read = Architecture.load(tmp_path / "architecture.json")
        assert read.mean_widths == one.mean_widths
        assert read.groups == one.groups
