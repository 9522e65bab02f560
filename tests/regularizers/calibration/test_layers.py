import jax
import numpy as np

from regularizers.calibration.layers import Program, conv, relu


def test_a_program_runs_on_arrays_of_its_abstract_shapes():
    program = Program(name="p", layers=(conv(4, 3), relu, conv(6, 1)), shape=(2, 5, 5, 3))
    variables, x = program.abstract()
    assert variables["layer_0"]["kernel"].shape == (3, 3, 3, 4)
    assert variables["layer_2"]["kernel"].shape == (1, 1, 4, 6)
    arrays = program.arrays()
    assert jax.tree.map(lambda a: a.shape, arrays) == jax.tree.map(
        lambda a: a.shape, (variables, x)
    )
    out = program(*arrays)
    assert out.shape == (2, 5, 5, 6)
    assert np.isfinite(out).all()
