"""Functions of one line, of which many go into one file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.export import onnx

X = np.random.default_rng(1).uniform(0.1, 0.9, (3, 5, 3)).astype(np.float32)


@pytest.fixture
def agree(tmp_path):
    """Writes functions into one file, and runs that beside JAX; gives what was written."""

    def check(functions, x=X, rtol=1e-5, atol=1e-6):
        def fn(_, x):
            return {name: own(x) for name, own in functions.items()}

        written = onnx.to_onnx(fn, {"unused": x}, x, tmp_path / "a.onnx")
        expected = jax.jit(fn)(None, jnp.asarray(x))
        found = onnx.load(written.path)(x)
        found = found if isinstance(found, dict) else dict(zip(functions, [found], strict=True))
        for name, wanted in expected.items():
            for k, leaf in enumerate(wanted if isinstance(wanted, list | tuple) else [wanted]):
                own = found[f"{name}/{k}" if isinstance(wanted, list | tuple) else name]
                dtype = np.float32 if leaf.dtype == jnp.bfloat16 else leaf.dtype
                assert (own.dtype, own.shape) == (dtype, leaf.shape), name
                close = 3e-2 if leaf.dtype.itemsize == 2 else rtol
                np.testing.assert_allclose(
                    own.astype(np.float64), np.asarray(leaf, np.float64), close, atol, err_msg=name
                )
        return written

    return check
