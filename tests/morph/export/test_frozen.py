"""What depends on weights alone is computed once."""

import jax
import numpy as np
import pytest

from morph.export.frozen import freeze, steps

pytest.importorskip("flatbuffers")


def test_what_depends_on_weights_alone_is_computed_once(shrunk):
    _, fn, variables, x = shrunk
    left = [str(step.eqn.primitive) for step in steps(fn, variables, x)]
    assert "rsqrt" not in left  # of the batch norm's variance
    assert left.count("conv_general_dilated") == 1
    assert "jit" not in left
    np.testing.assert_allclose(jax.jit(freeze(fn, variables))(x), fn(variables, x), atol=1e-6)
