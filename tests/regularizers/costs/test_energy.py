"""Energy: operations, weights from DRAM, activations through SRAM."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import regularizers as reg
from regularizers.costs.energy import HOROWITZ_2014, EnergyTable

B, M, N, K = 2, 5, 7, 3
NAMES = ("multiply_joules", "add_joules")


def struct(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


VARIABLES = {"a": struct(M, N), "b": struct(N, N), "c": struct(N, K)}


def traced(fn):
    return reg.trace_channels(fn, VARIABLES, struct(B, M))


def perceptron():
    return traced(lambda v, x: jax.nn.relu(x @ v["a"]) @ v["c"])


def table_of(multiply, add, dram, sram):
    return EnergyTable(
        multiply_joules={"float32": multiply, "int8": multiply},
        add_joules={"float32": add, "int8": add},
        dram_joules_per_byte=dram,
        sram_joules_per_byte=sram,
        source="test",
    )


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("int8", 1)])
def test_by_hand(dtype, size):
    """Every term with a price of its own, in integers that cannot be confused."""
    macs = B * M * N + B * N * K
    weights = M * N + N * K
    activations = (B * M + B * N) + (B * N + B * N) + (B * N + B * K)  # product, relu, product
    cost = reg.energy(perceptron(), table_of(1.0, 10.0, 1e3, 1e6), dtype)
    assert cost() == macs * 11.0 + size * (weights * 1e3 + activations * 1e6)
    assert cost.unit == "J"


def test_the_published_table():
    """45 nm, in picojoules."""
    table = HOROWITZ_2014
    assert table.multiply_joules == {
        "int8": 0.2e-12, "float16": 1.1e-12, "int32": 3.1e-12, "float32": 3.7e-12,
    }  # fmt: skip
    assert (table.add_joules["float16"], table.add_joules["float32"]) == (0.4e-12, 0.9e-12)
    assert table.dram_joules_per_byte * 4 == 640e-12
    assert table.sram_joules_per_byte * 8 == 100e-12
    assert "Horowitz" in HOROWITZ_2014.source


def test_weights_from_dram_dominate_a_small_batch():
    """As published: a fetch from DRAM costs over a hundred operations."""
    table = HOROWITZ_2014
    operation = table.multiply_joules["float32"] + table.add_joules["float32"]
    assert 4 * table.dram_joules_per_byte > 100 * operation


def test_a_loop_fetches_its_weights_every_turn():
    def fn(v, x):
        return lax.scan(lambda h, _: (h @ v["b"], None), x @ v["a"], length=9)[0] @ v["c"]

    tiny = 1e-30
    cost = reg.energy(traced(fn), table_of(tiny, tiny, 1.0, tiny))
    assert cost() == pytest.approx(4 * (M * N + 9 * N * N + N * K), rel=1e-9)


def test_gradient_equals_finite_differences():
    cost = reg.energy(perceptron())
    (slope,) = cost.marginal([N])
    np.testing.assert_allclose(slope, (cost({"a": N + 1}) - cost({"a": N - 1})) / 2, rtol=1e-6)
    assert cost.smooth() == cost()


def test_unknown_types_list_the_known():
    with pytest.raises(ValueError, match=r"no energy for 'float64'.*float32"):
        reg.energy(perceptron(), dtype="float64")


@pytest.mark.parametrize("figure", [0.0, -1.0, math.inf, math.nan])
def test_unphysical_figures_are_refused(figure):
    for name in ("dram_joules_per_byte", "sram_joules_per_byte"):
        with pytest.raises(ValueError, match=f"energy table: {name} must be a positive number"):
            dataclasses.replace(HOROWITZ_2014, **{name: figure})
    for name in NAMES:
        with pytest.raises(ValueError, match=rf"{name}\['int8'\] must be a positive number, found"):
            dataclasses.replace(HOROWITZ_2014, **{name: {"int8": figure}})


def test_a_type_needs_both_figures():
    with pytest.raises(ValueError, match="'int4' needs both multiply_joules and add_joules"):
        dataclasses.replace(HOROWITZ_2014, add_joules={**HOROWITZ_2014.add_joules, "int4": 1e-13})
