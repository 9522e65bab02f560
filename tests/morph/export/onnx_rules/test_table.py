"""One table of rules; what is not in it is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from morph.export import ExportError, onnx
from morph.export.onnx_rules import control, elementwise, indexing, products, reductions, shapes
from morph.export.onnx_rules.table import AS_IT_IS, MOVES, RULES, TOLD

FILES = (control, elementwise, indexing, products, reductions, shapes)


def test_every_primitive_has_one_rule():
    assert sum(len(file.RULES) for file in FILES) == len(RULES)
    assert all(primitive.name for primitive in RULES)
    assert RULES.keys() >= {*AS_IT_IS, *MOVES, *TOLD}


REFUSED = {
    "fft": lambda x: jnp.fft.rfft(x, axis=1).real,
    "convert_element_type": lambda x: jnp.abs(x + 1j * x),
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.swapaxes(1, 2) + jnp.eye(3)[None]),
    "bitcast_convert_type": lambda x: lax.bitcast_convert_type(x, jnp.int32),
    "random_seed": lambda x: jax.random.uniform(jax.random.key(x[0, 0, 0].astype(int)), (3,)),
    "scatter": lambda x: x.at[:, 1].apply(jnp.sin),
    "conv_general_dilated": lambda x: lax.conv(
        (x * 9).astype(int), jnp.ones((2, 3, 1), int), (1,), "SAME"
    ),
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_lacks_is_refused_by_name(tmp_path, name):
    pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 3)).astype(np.float32)
    with pytest.raises(ExportError, match=rf"cannot write {name} in .*lambda"):
        onnx.to_onnx(lambda _, x: REFUSED[name](jnp.asarray(x)), {}, x, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())
