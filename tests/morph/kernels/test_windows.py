"""Convolutions, core by core."""

import jax
import jax.numpy as jnp
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


@pytest.mark.parametrize(
    ("groups", "ins", "outs", "window"),
    [(2, 6, 8, (3, 2)), (4, 8, 8, (1, 1)), (5, 5, 10, (2, 3))],
    ids=["grouped", "pointwise", "depthwise"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_groups_share_the_other_cores(kind, groups, ins, outs, window):
    kernel, x = factorized(kind, (*window, ins // groups, outs), "ssio"), normal(2, 5, 4, ins)

    def convolve(variables, x):
        return jax.lax.conv_general_dilated(
            x,
            variables["k"],
            (1, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
            precision="highest",
        )

    def both(kernel):
        found = morph.tensorized(convolve)({"k": kernel}, x)
        return found, convolve({"k": kernel.dense()}, x)

    def slopes(kernel):
        return jax.grad(lambda k, i: jnp.sum(both(k)[i] ** 2))(kernel, 0), jax.grad(
            lambda k, i: jnp.sum(both(k)[i] ** 2)
        )(kernel, 1)

    found, expected = jax.jit(both)(kernel)
    assert_close(found, expected)
    for one, other in zip(*(slope.cores for slope in jax.jit(slopes)(kernel)), strict=True):
        assert_close(one, other, 1e-4)


def test_groups_that_cut_through_a_factor_make_the_kernel_dense():
    kernel = factorized("tt", (3, 4, 12), "sio")  # outputs are 3 x 2 x 2
    assert kernel.sizes["o0"] == 3
    x = normal(2, 7, 16)

    def convolve(variables, x):
        return jax.lax.conv_general_dilated(
            x, variables["k"], (1,), "SAME", feature_group_count=4,
            dimension_numbers=("NWC", "WIO", "NWC"), precision="highest",
        )  # fmt: skip

    found = morph.tensorized(convolve)({"k": kernel}, x)
    assert_close(found, convolve({"k": kernel.dense()}, x))
