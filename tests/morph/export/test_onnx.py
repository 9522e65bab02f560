import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import ExportError, onnx, onnx_graph
from morph.export.onnx_rules.table import RULES

pytest.importorskip("onnx")


pytest.importorskip("onnxruntime")
RNG = np.random.default_rng(0)


class Everything(nn.Module):
    """Strides, groups, dilation, both pools, a concatenation, a residual, attention."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu6(nn.Conv(6, (3, 3), strides=2, padding=1)(x))
        x = x + nn.Conv(6, (3, 3), feature_group_count=3, kernel_dilation=2)(x)
        pooled = nn.max_pool(x, (3, 3), (1, 1), "SAME"), nn.avg_pool(x, (3, 3), padding="SAME")
        x = jnp.concatenate(pooled, -1)
        x = nn.silu(nn.BatchNorm(use_running_average=True)(x))
        x = x.reshape(x.shape[0], -1, 12)
        x = nn.gelu(nn.LayerNorm()(x))
        return nn.Dense(3)(nn.MultiHeadDotProductAttention(2)(x, x).mean(1))


@pytest.mark.promotes
def test_a_network_runs_in_onnxruntime_at_any_batch(tmp_path):
    module, rng = Everything(), np.random.default_rng(0)
    x = rng.normal(size=(5, 9, 7, 2)).astype(np.float32)
    variables = jax.jit(module.init)(jax.random.key(0), x)
    written = onnx.to_onnx(module.apply, variables, x[:2], tmp_path / "a.onnx")
    assert (written.batch, written.note) == (None, "")
    wanted = np.asarray(jax.jit(module.apply)(variables, x))
    found = onnx.load(written.path)(x)
    assert np.max(np.abs(found - wanted)) < 1e-5 * np.max(np.abs(wanted))


X = np.random.default_rng(1).uniform(0.1, 0.9, (4, 5, 3)).astype(np.float32)


def test_an_unknown_operation_is_named_with_its_layer(tmp_path):
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            with jax.named_scope("waves"):
                return jnp.abs(jnp.fft.fft(x))

    with pytest.raises(ExportError, match=r"fft in Odd/waves.*test_onnx\.py.*StableHLO"):
        onnx.to_onnx(Odd().apply, {"params": {}}, X, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_what_onnxruntime_makes_otherwise_is_named_with_its_line(tmp_path, monkeypatch):
    rules = {**RULES, jax.lax.sin_p: RULES[jax.lax.cos_p]}
    monkeypatch.setattr(onnx_graph, "RULES", rules)
    with pytest.raises(ExportError, match=r"cannot write sin in .*test_onnx\.py.*: off by"):
        onnx.to_onnx(lambda _, x: jnp.sin(x) * 2, {}, X, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fn", "examples"),
    [
        (lambda _, x: x - x.sum(0, keepdims=True) * (int(x.shape[0]) > 0), "mixed"),
        (lambda _, x: x * (int(x.shape[0]) > 0), "independent"),
        (lambda _, x: x * int(x.shape[0]), "mixed"),
    ],
    ids=["a sum", "alone", "their number"],
)
def test_only_independent_examples_run_in_other_numbers(fn, examples, tmp_path):
    """A fixed batch is padded or divided only where that is the same."""
    written = onnx.to_onnx(fn, {}, X, tmp_path / "a.onnx")
    run = onnx.load(written.path)
    np.testing.assert_allclose(run(X), fn(None, X), rtol=1e-6)
    if examples == "independent":
        assert written.batch in (None, len(X))
        np.testing.assert_allclose(run(X[:3]), fn(None, X[:3]))
    else:
        assert (written.batch, written.examples) == (len(X), examples)
        with pytest.raises(ExportError, match=r"takes 4 examples at once and mixes them, so 3"):
            run(X[:3])


def test_a_file_that_does_not_say_is_not_divided(tmp_path):
    path = onnx.to_onnx(lambda _, x: x * int(x.shape[0]), {}, X, tmp_path / "a.onnx").path
    model = onnx.onnx.load(path)
    del model.metadata_props[:]
    onnx.onnx.save(model, path)
    with pytest.raises(ExportError, match="may mix them: it does not say"):
        onnx.load(path)(X[:3])


def test_trees_go_in_and_out_by_name(tmp_path):
    def fn(w, x):
        hidden = x["tokens"] @ w
        return {"out": hidden * x["scale"], "cache": x["cache"] + hidden}

    x = {
        "tokens": X[:2, 0],
        "cache": np.ones((2, 2), np.float32),
        "scale": np.asarray(3.0, np.float32),
    }
    w = np.ones((3, 2), np.float32)
    written = onnx.to_onnx(fn, w, x, tmp_path / "a.onnx")
    assert written.batch is None
    more = {**x, "tokens": X[:, 0], "cache": np.ones((4, 2), np.float32)}
    found, expected = onnx.load(written.path)(more), fn(w, more)
    np.testing.assert_allclose(found["out"], expected["out"], rtol=1e-5)
    np.testing.assert_allclose(found["new_cache"], expected["cache"], rtol=1e-5)
    with pytest.raises(ExportError, match="the file takes cache, scale, tokens; found input"):
        onnx.load(written.path)(X)


def test_random_numbers_of_a_known_key_are_weights(tmp_path):
    def fn(_, x):
        return x + jax.random.normal(jax.random.key(0), (1, 5, 3))

    written = onnx.to_onnx(fn, {}, X, tmp_path / "a.onnx")
    np.testing.assert_allclose(onnx.load(written.path)(X), fn(None, X), rtol=1e-5)
    with pytest.raises(ExportError, match="random"):
        onnx.to_onnx(
            lambda _, x: jax.random.normal(jax.random.key(x[0, 0, 0].astype(int)), (2,)), {}, X,
            tmp_path / "b.onnx",
        )  # fmt: skip


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match="cannot read"):
        onnx.load(tmp_path / "a.onnx")


def test_inputs_may_be_called_as_what_is_inside_of_a_file(tmp_path):
    names = ["constant_0", "Mul_1", "given_2", "folded_4", "turned_3"]
    x = {name: RNG.normal(size=(2, 4, 4, 3)).astype(np.float32) for name in names}
    kernel = RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)

    def fn(kernel, x):
        y = sum(x[name] * (3.0 + k) for k, name in enumerate(names))
        for _ in range(2):
            y = 2.0 * jax.lax.conv_general_dilated(
                y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        return {"Conv_9": y, "Add_3": x["Mul_1"] + 1.0}

    onnx.to_onnx(fn, kernel, x, tmp_path / "a.onnx")
    found = onnx.load(tmp_path / "a.onnx")(x)
    for name, wanted in fn(kernel, x).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_inputs_of_types_that_become_others(tmp_path, dtype):
    x, kernel = np.ones((2, 3)), np.full((3, 2), 0.5, np.float32)
    x = x if dtype == "float64" else jnp.asarray(x, dtype)
    onnx.to_onnx(lambda w, x: x @ w, kernel, x, tmp_path / "a.onnx")
    np.testing.assert_array_equal(onnx.load(tmp_path / "a.onnx")(x), np.full((2, 2), 1.5))


def test_a_key_is_no_input(tmp_path):
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ExportError, match=r"a key of random numbers, .*\(jax\.random\.key_data\)"):
        onnx.to_onnx(lambda _, x: jax.random.normal(x[0]), None, keys, tmp_path / "a.onnx")
