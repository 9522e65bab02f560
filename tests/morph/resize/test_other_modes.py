"""An architecture that was inferred from one call serves others, which read more or less."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import morph
import regularizers as reg

X = jax.random.normal(jax.random.key(1), (4, 5))
ALIVE = {"Dense_0": np.arange(16) % 2 == 0}


class Centered(nn.Module):
    """A statistic and a second head that only training reads."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Dense(16)(x))
        center = self.variable("batch_stats", "center", lambda: jnp.arange(16.0))
        second = self.param("second", nn.initializers.lecun_normal(), (16, 2))
        y = nn.Dense(3)(x)
        if not train:
            return y
        center.value = 0.9 * center.value + 0.1 * x.mean(0)
        return y, x @ second


MODEL = Centered()
TRAIN = {"train": True, "mutable": ["batch_stats"]}


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(jax.random.key(0), X)


@pytest.mark.parametrize("traced", [{}, {"mutable": ["batch_stats"]}], ids=["read", "handed on"])
def test_what_only_training_reads_is_sliced_when_it_reads_it(variables, traced):
    graph = reg.trace_channels(MODEL.apply, variables, X, **traced)
    assert graph.widths == {"Dense_0": 16}
    kinds = {path.split("/")[-1]: v.kind for path, v in graph.variables.items()}
    assert (kinds["center"], kinds["second"]) == ("unused", "unused")
    arch, masked = morph.shrink(graph, ALIVE), graph.mask(variables, ALIVE)
    small, fn = arch.take(masked), morph.compact(MODEL.apply, arch)
    np.testing.assert_allclose(fn(small, X), MODEL.apply(masked, X), rtol=1e-5)
    # Once at the seed's width, then at its own.
    for _ in range(2):
        (y, second), updates = fn(small, X, **TRAIN)
        (whole, other), wanted = MODEL.apply(masked, X, **TRAIN)
        np.testing.assert_allclose(y, whole, rtol=1e-5)
        np.testing.assert_allclose(second, other, rtol=1e-4, atol=1e-5)
        kept = jax.tree.map(lambda leaf: leaf[ALIVE["Dense_0"]], wanted)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, kept)
        small, masked = {**small, **updates}, {**masked, **wanted}
    slopes = jax.grad(lambda v: jnp.sum(fn(v, X, **TRAIN)[0][1]))(small)
    assert slopes["params"]["second"].shape == (16, 2)
    assert not np.asarray(slopes["params"]["second"])[~ALIVE["Dense_0"]].any()


def test_a_width_that_fits_neither_is_refused(variables):
    arch = morph.shrink(reg.trace_channels(MODEL.apply, variables, X), ALIVE)
    small = arch.take(variables)
    small["batch_stats"] = {"center": jnp.zeros(5)}
    with pytest.raises(ValueError, match=r"center' has shape \[5\].*from \[16\] to \[8\]"):
        morph.compact(MODEL.apply, arch)(small, X, **TRAIN)


def test_clones_of_what_nobody_read_have_no_shares(variables):
    seed = morph.Architecture.of_seed(reg.trace_channels(MODEL.apply, variables, X))
    wide = seed.with_parents({"Dense_0": [*range(16), *range(16)]})
    with pytest.raises(ValueError, match="no shares: trace in this mode"):
        morph.compact(MODEL.apply, wide)(wide.take(variables), X, **TRAIN)


class Synchronized(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.BatchNorm(use_running_average=not train, axis_name="batch")(nn.Dense(16)(x))
        return nn.Dense(3)(nn.relu(x))


def test_statistics_of_many_devices():
    model = Synchronized()
    variables = model.init(jax.random.key(0), X)
    with pytest.raises(ValueError, match=r"train=False.*inside the pmap"):
        reg.trace_channels(model.apply, variables, X, **TRAIN)
    arch = morph.shrink(reg.trace_channels(model.apply, variables, X, train=False), ALIVE)
    fn = morph.compact(model.apply, arch)
    batch = X.reshape(2, 2, 5)
    run = jax.vmap(lambda x: fn(arch.take(variables), x, **TRAIN), axis_name="batch")
    _, updates = run(batch)
    assert updates["batch_stats"]["BatchNorm_0"]["mean"].shape == (2, 8)
    np.testing.assert_array_equal(*updates["batch_stats"]["BatchNorm_0"]["mean"])


def test_a_name_that_the_model_lacks_is_the_models_own_error():
    with pytest.raises(NameError, match="not_there"):
        reg.trace_channels(lambda v, x: not_there(v, x), {"a": X}, X)


class Boxed(nn.Module):
    """Kernels with the names of mesh axes, biases without."""

    @nn.compact
    def __call__(self, x):
        def kernel(*names):
            return nn.with_partitioning(nn.initializers.lecun_normal(), names)

        x = nn.relu(nn.Dense(16, kernel_init=kernel(None, "model"))(x))
        y = nn.Dense(16, kernel_init=kernel("model", None))(nn.relu(nn.Dense(6)(x)))
        return nn.Dense(3, kernel_init=kernel("model", None))(x + y)


@pytest.mark.parametrize("traced", ["boxed", "bare"])
@pytest.mark.parametrize("given", ["boxed", "bare"])
def test_boxes_do_not_matter(traced, given):
    model = Boxed()
    boxed = model.init(jax.random.key(0), X)
    forms = {"boxed": boxed, "bare": nn.unbox(boxed)}
    graph = reg.trace_channels(model.apply, forms[traced], X)
    assert graph.widths == {"Dense_0": 16, "Dense_2": 6}
    variables = graph.mask(forms[given], ALIVE, removed=["Dense_1"])
    arch = morph.shrink(graph, ALIVE, removed=["Dense_1"])
    small = arch.take(variables)
    assert sorted(small["params"]) == ["Dense_0", "Dense_3"]
    assert isinstance(small["params"]["Dense_0"]["kernel"], nn.Partitioned) == (given == "boxed")
    np.testing.assert_allclose(
        morph.compact(model.apply, arch)(small, X), model.apply(variables, X), rtol=1e-5
    )
    reg.NetworkRegularizer(graph, reg.flops(graph)).strengths(variables)


def attend(variables, x, at=0):
    """Causal attention over what is cached and what is new."""
    p, cache = variables["params"], variables.get("cache")
    q, k, v = (jnp.einsum("bti,ihd->bthd", x, p[name]) for name in "qkv")
    if cache is not None:
        k, v = (
            jax.lax.dynamic_update_slice(cache[n], new, (0, at, 0, 0))
            for n, new in (("k", k), ("v", v))
        )
    past = jnp.arange(k.shape[1])[None, :] <= at + jnp.arange(x.shape[1])[:, None]
    weights = jnp.einsum("bthd,bshd->bhts", q, k) + jnp.where(past, 0.0, -1e9)[None, None]
    y = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(weights), v)
    return jnp.einsum("bthd,hdo->bto", y, p["out"]), {"cache": {"k": k, "v": v}}


def test_prefill_and_decoding_share_an_architecture(rng):
    shapes = dict.fromkeys("qkv", (5, 4, 6)) | {"out": (4, 6, 5)}
    params = {n: jax.device_put(rng.normal(size=s).astype("f") / 2) for n, s in shapes.items()}

    def cache(batch, length):
        return {"k": jnp.zeros((batch, length, 4, 6)), "v": jnp.zeros((batch, length, 4, 6))}

    one = {"params": params, "cache": cache(1, 3)}
    graph = reg.trace_channels(attend, one, jnp.ones((1, 1, 5)), at=jnp.int32(0))
    alive = {name: np.arange(width) != 1 for name, width in graph.widths.items()}
    assert sorted(graph.widths.values()) == [4, 6, 6]
    arch, masked = morph.shrink(graph, alive, inexact=True), graph.mask(one, alive)["params"]
    x = jax.device_put(rng.normal(size=(2, 5, 5)).astype("f"))
    whole, _ = attend({"params": masked}, x)
    # Another batch size and length than those that were traced.
    small = arch.take({"params": masked, "cache": cache(2, 7)})
    run = jax.jit(morph.compact(attend, arch))
    alone, made = run({"params": small["params"]}, x)
    np.testing.assert_allclose(alone, whole, rtol=1e-4, atol=1e-5)
    assert made["cache"]["v"].shape == (2, 5, 3, 5)
    outputs = []
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        y, updates = run(small, x[:, start:stop], at=jnp.int32(start))
        small |= updates
        outputs.append(y)
    np.testing.assert_allclose(jnp.concatenate(outputs, 1), whole, rtol=1e-4, atol=1e-5)
    assert small["cache"]["k"].shape == (2, 7, 3, 5)


def test_a_cache_that_was_not_traced_is_told(variables):
    arch = morph.shrink(reg.trace_channels(MODEL.apply, variables, X), ALIVE)
    with pytest.raises(ValueError, match=r"no variable 'cache/k'.*trace.*among the variables"):
        morph.compact(MODEL.apply, arch)({**arch.take(variables), "cache": {"k": X}}, X)
