"""Cores that stand where a kernel stood."""

import jax
import jax.numpy as jnp
import numpy as np
from kernel_cases import factorized


def test_a_factorized_kernel_is_a_pytree_value():
    kernel = factorized("tucker2", (3, 3, 4, 6), "ssio")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(kernel)]
    assert paths == ["['in']", "['core']", "['out']"]
    assert kernel.parameters == 4 * 3 + 9 * 9 + 3 * 6
    assert (kernel.ndim, kernel.ranks) == (4, {"r_in": 3, "r_out": 3})
    halved = jax.tree.map(lambda core: core.astype(jnp.bfloat16), kernel)
    assert halved.dtype == jnp.bfloat16
    assert str(kernel) == "tucker2[3, 3, 4, 6] (r_in 3, r_out 3; 111 parameters)"


def test_reshape_and_transpose_keep_the_cores():
    kernel = factorized("tt", (12, 20), "io")
    np.testing.assert_allclose(kernel.transpose((1, 0)).dense(), kernel.dense().T, atol=1e-5)
    turned = kernel.flip((1,)).transpose((1, 0))
    np.testing.assert_allclose(turned.dense(), kernel.dense().T[::-1], atol=1e-5)
    np.testing.assert_allclose(turned.flip((0, 1)).dense(), kernel.dense().T[:, ::-1], atol=1e-5)
    merged = kernel.reshape((1, 240))
    np.testing.assert_allclose(merged.dense(), kernel.dense().reshape(1, 240), atol=1e-5)
    assert merged.reshape((7, 40)) is None
    assert merged.reshape(()) is None
