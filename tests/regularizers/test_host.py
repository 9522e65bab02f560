"""Arrays come to the host as they are."""

import jax.numpy as jnp
import numpy as np

from regularizers.host import on_host


def test_a_tree_of_arrays_becomes_numpys():
    found = on_host({"a": jnp.asarray([1.0, -0.0]), "b": np.arange(3), "c": 2})
    assert {name: type(leaf) for name, leaf in found.items()} == dict.fromkeys("abc", np.ndarray)
    assert found["a"].tobytes() == np.asarray([1.0, -0.0], np.float32).tobytes()
