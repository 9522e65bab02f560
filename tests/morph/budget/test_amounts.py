"""Budgets and floors as a person says them."""

import jax
import jax.numpy as jnp
import pytest

import regularizers as reg
from morph.budget.amounts import floors_of, parse_budget
from morph.errors import BudgetError
from regularizers.named import cost_named

M, N, K = 5, 11, 3  # inputs, hidden, outputs


@pytest.fixture(scope="module")
def graph():
    def fn(variables, x):
        return jax.nn.relu(x @ variables["a"]) @ variables["b"]

    variables = {"a": jnp.ones((M, N)), "b": jnp.ones((N, K))}
    return reg.trace_channels(fn, variables, jnp.ones((1, M)))


@pytest.mark.parametrize(
    ("said", "target", "amount"),
    [
        (0.5, "flops", 0.5 * 176),
        ("0.5", "flops", 0.5 * 176),
        ("50%", "flops", 0.5 * 176),
        ("120FLOP", "flops", 120),
        ("0.12 kFLOPs", "flops", 120),
        ("1.5Mflop", "flops", 1.5e6),
        ("88 parameters", "size", 88),
        ("1.2M parameters", "size", 1.2e6),
        ("300KB", "activation_bytes", 3e5),
        ("300kB", "activation_bytes", 3e5),
        ("2MiB", "activation_bytes", 2.0**21),
        ("2ms", "V100", 2e-3),
        ("150us", "V100", 150e-6),
        ("150 µs", "V100", 150e-6),
        ("3mJ", "energy", 3e-3),
        ("1e-3 J", "energy", 1e-3),
    ],
)
def test_budgets_are_parsed(graph, said, target, amount):
    if target == "flops":
        assert cost_named(graph, target).seed == 2 * (M + K) * N == 176
    assert parse_budget(said, cost_named(graph, target)) == pytest.approx(amount, rel=1e-12)


@pytest.mark.parametrize(
    ("said", "target", "message"),
    [
        ("2ms", "flops", r"asked for 'ms', and flops is counted in FLOP .*120MFLOP"),
        ("120mFLOP", "flops", r"m is milli; a million is M"),
        ("2Ms", "V100", r"M is a million; milli is m"),
        ("300KB", "size", r"counted in parameters \(the seed's is 88 parameters\)"),
        ("300kb", "activation_bytes", r"bytes are B"),
        ("2KiFLOP", "flops", r"'Ki' is no prefix of FLOP"),
        ("half", "flops", r"'half' is not an amount; give a ratio .*0\.5 or 50%"),
        ("0", "flops", r"must be above zero, found '0'"),
        (-0.5, "flops", r"must be above zero"),
        (float("nan"), "flops", r"nan is not an amount"),
        ("3mJ", "0.5*flops+0.5*size", r"counted in x seed"),
    ],
)
def test_budgets_that_are_none(graph, said, target, message):
    with pytest.raises(BudgetError, match=message):
        parse_budget(said, cost_named(graph, target))


def test_floors_by_pattern(small):
    _, graph = small
    floors = floors_of(graph, 2, {"Conv_1": 9, "Conv_*": 99})
    assert floors == {"Conv_0": 24, "Conv_1": 9, "Dense_1": 2}
    with pytest.raises(ValueError, match=r"floors: 'Conv_9' matches no .*did you mean 'Conv_2'"):
        floors_of(graph, 1, {"Conv_9": 2})
    with pytest.raises(ValueError, match="must be at least 1, found 0 for 'Conv_1'"):
        floors_of(graph, 1, {"Conv_1": 0})
