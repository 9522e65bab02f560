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
    assert written.batch == 3
    assert "the batch is fixed: InconclusiveDimensionOperation" in written.note


def test_bad_input_names_what_was_found(shrunk, tmp_path):
    _, fn, variables, x = shrunk
    with pytest.raises(ExportError, match="example input"):
        stablehlo.to_stablehlo(fn, variables, 3, tmp_path / "a")
    with pytest.raises(ExportError, match="one output"):
        stablehlo.to_stablehlo(lambda v, x: (x, x), variables, x, tmp_path / "a")
    (tmp_path / "b").write_bytes(b"no such thing")
    with pytest.raises(ExportError, match=r"no file of jax\.export"):
        stablehlo.load(tmp_path / "b")


def test_integers_go_in_as_they_are(tmp_path):
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    tokens = jnp.asarray([[1, 2, 5]], jnp.int32)
    written = stablehlo.to_stablehlo(lambda t, x: t[x].sum(1), table, tokens, tmp_path / "a")
    np.testing.assert_allclose(stablehlo.load(written.path)(tokens), [[16.0, 19.0]])
