"""Convolutions, core by core."""

import jax
import pytest
from kernel_cases import assert_close, factorized, normal

import morph
from morph.kernels.formats import FORMATS

KINDS = sorted(FORMATS)

CONVOLUTIONS = [
    pytest.param(padding, stride, lhs, rhs, layout, id=f"{padding}-{stride}-{lhs}-{rhs}-{layout}")
    for padding, stride, lhs, rhs, layout in [
        (((1, 1), (0, 1)), (1, 1), (1, 1), (1, 1), "last"),
        (((0, 0), (0, 0)), (2, 3), (1, 1), (1, 1), "last"),
        (((2, 1), (0, 3)), (2, 1), (1, 1), (1, 2), "first"),
        (((2, 2), (1, 0)), (1, 1), (2, 1), (1, 1), "first"),
        (((-1, 1), (0, 0)), (1, 2), (1, 3), (2, 1), "last"),
    ]
]


@pytest.mark.parametrize("window", [(3, 2), (1, 1)])
@pytest.mark.parametrize(("padding", "stride", "lhs", "rhs", "layout"), CONVOLUTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_of_cores_is_the_convolution(kind, padding, stride, lhs, rhs, layout, window):
    last = layout == "last"
    numbers = ("NHWC", "HWIO", "NHWC") if last else ("NCHW", "OIHW", "NCHW")
    shape = (*window, 6, 8) if last else (8, 6, *window)
    kernel = factorized(kind, shape, "ssio" if last else "oiss")
    x = normal(2, 7, 9, 6) if last else normal(2, 6, 7, 9)

    def convolve(variables, x):
        return jax.lax.conv_general_dilated(
            x, variables["k"], stride, padding, lhs, rhs, numbers, precision="highest"
        )

    assert kernel.shape == shape
    found = jax.jit(morph.tensorized(convolve))({"k": kernel}, x)
    assert_close(found, convolve({"k": kernel.dense()}, x))
