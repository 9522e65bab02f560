"""Random small networks x random kept channels: the compact function equals the masked one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from corpus.costs import COSTS
from corpus.programs import IMAGE, OPERATIONS, network
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import morph
import regularizers as reg

programs = st.tuples(
    st.lists(
        st.tuples(st.sampled_from(OPERATIONS), st.integers(2, 6), st.integers(0, 5)),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 1),
)


# Shrinking a failing network takes minutes; it is small as it is.
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    phases=[Phase.generate],
)
@given(programs, st.integers(0, 2**16))
def test_compact_equals_masked(program, seed):
    fn, variables = network(program)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=IMAGE).astype(np.float32)
    graph = reg.trace_channels(fn, variables, x)
    assert graph.unknown == {}
    alive = {name: rng.random(width) < 0.6 for name, width in graph.widths.items()}
    for mask in alive.values():
        mask[rng.integers(mask.size)] = True
    arch = morph.shrink(graph, alive)
    small_fn = morph.compact(fn, arch)

    @jax.jit  # also what masks and slices: piece by piece it compiles for every shape
    def both(variables, x):
        masked = graph.mask(variables, alive)
        return fn(masked, x), small_fn(arch.take(masked), x)

    expected, found = both(variables, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(np.abs(expected).max()))


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    phases=[Phase.generate],
)
@given(programs, st.integers(0, 2**16))
def test_costs_of_an_architecture_equal_those_of_the_compacted_function(program, seed):
    """All costs: at an architecture's widths, and of the small function traced anew."""
    fn, variables = network(program)
    rng = np.random.default_rng(seed)
    x = jax.ShapeDtypeStruct(IMAGE, jnp.float32)
    graph = reg.trace_channels(fn, variables, x)
    alive = {name: rng.random(width) < 0.6 for name, width in graph.widths.items()}
    for mask in alive.values():
        mask[rng.integers(mask.size)] = True
    arch = morph.shrink(graph, alive)
    small = reg.trace_channels(morph.compact(fn, arch), arch.take(variables), x)
    for kind, build in COSTS.items():
        assert build(graph)(arch.widths) == pytest.approx(build(small)(), rel=1e-9), kind


def test_every_operation_alone():
    """Each operation keeps at least the stem's width free, or one of its own."""
    for operation in OPERATIONS:
        for choice in (0, 1):
            fn, variables = network(([(operation, 4, choice)], choice))
            graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct(IMAGE, jnp.float32))
            assert graph.groups, operation.__name__
            assert all(group.exact for group in graph.groups.values()), operation.__name__


@pytest.mark.parametrize("seed", range(8))
def test_hard_programs_are_sound(seed):
    """A few of the many that `python -m corpus.fuzz` draws."""
    outcome = check(seed)
    assert outcome.verdict == "sound", outcome


def test_every_hard_operation_alone():
    """None is unknown, and each leaves some width free, in some way of writing it."""
    for operation in HARD:
        free = []
        for choice in range(6):
            fn, variables = network(([(operation, 4, choice)], 0))
            graph = reg.trace_channels(fn, variables, jax.ShapeDtypeStruct(IMAGE, jnp.float32))
            assert graph.unknown == {}
            free += [group.exact for group in graph.groups.values()]
        assert any(free), operation.__name__
