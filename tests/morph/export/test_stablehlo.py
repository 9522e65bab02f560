"""Files that run at any batch, without the model."""

import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import ExportError, stablehlo

pytest.importorskip("flatbuffers")


def test_a_file_runs_at_any_batch_without_the_model(shrunk, tmp_path):
    _, fn, variables, x = shrunk
    written = stablehlo.to_stablehlo(fn, variables, x[:2], tmp_path / "a")
    assert written.batch is None
    assert not written.note
    assert written.size_bytes == written.path.stat().st_size
    np.testing.assert_allclose(stablehlo.load(written.path)(x), fn(variables, x), atol=1e-6)


def test_a_function_that_mixes_examples_keeps_its_batch_and_says_so(tmp_path):
    def fn(variables, x):
        return (x - x.mean(0, keepdims=True) if x.shape[0] > 1 else x) @ variables

    x = np.arange(6.0, dtype=np.float32).reshape(3, 2)
    written = stablehlo.to_stablehlo(fn, np.ones((2, 2), np.float32), x, tmp_path / "a")
    found = stablehlo.load(written.path)(x)
    np.testing.assert_allclose(found, (x - x.mean(0)).sum(1)[:, None].repeat(2, 1))
    assert (written.batch, written.examples) == (3, "mixed")
    assert "the batch is fixed: InconclusiveDimensionOperation" in written.note
    with pytest.raises(ExportError, match=r"takes 3 examples at once and mixes them, so 2 cannot"):
        stablehlo.load(written.path)(x[:2])


def test_a_fixed_batch_of_independent_examples_takes_any_number(tmp_path):
    def fn(variables, x):
        return jnp.tanh(x) @ variables * (1.0 if int(x.shape[0]) else 0.0)

    x = np.arange(6.0, dtype=np.float32).reshape(3, 2) / 6
    written = stablehlo.to_stablehlo(fn, np.ones((2, 2), np.float32), x, tmp_path / "a")
    many = np.concatenate([x, x[:2]])
    found = stablehlo.load(written.path)(many)
    np.testing.assert_allclose(found, fn(np.ones((2, 2)), many), rtol=1e-6)


def test_trees_go_in_and_out(tmp_path):
    def fn(variables, x):
        return {"sum": x["a"] @ variables + x["shift"], "b": -x["b"]}

    x = {"a": np.ones((2, 3), np.float32), "b": np.ones((2, 1)), "shift": np.float32(2)}
    written = stablehlo.to_stablehlo(fn, np.ones((3, 1), np.float32), x, tmp_path / "a")
    more = {"a": np.ones((4, 3), np.float32), "b": np.ones((4, 1), np.float32), "shift": x["shift"]}
    found = stablehlo.load(written.path)(more)
    np.testing.assert_array_equal(found["sum"], np.full((4, 1), 5.0))
    np.testing.assert_array_equal(found["b"], -more["b"])


def test_bad_input_names_what_was_found(shrunk, tmp_path):
    _, fn, variables, _ = shrunk
    with pytest.raises(ExportError, match="example input"):
        stablehlo.to_stablehlo(fn, variables, 3, tmp_path / "a")
    (tmp_path / "b").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match=r"not a file of jax\.export"):
        stablehlo.load(tmp_path / "b")


def test_integers_go_in_as_they_are(tmp_path):
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    tokens = jnp.asarray([[1, 2, 5]], jnp.int32)
    written = stablehlo.to_stablehlo(lambda t, x: t[x].sum(1), table, tokens, tmp_path / "a")
    np.testing.assert_allclose(stablehlo.load(written.path)(tokens), [[16.0, 19.0]])
