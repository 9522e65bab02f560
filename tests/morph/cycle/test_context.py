"""What holds for a whole run."""

import jax
import numpy as np
import pytest

from morph.cycle.context import key_of


def test_budgets_are_in_the_unit_of_the_cost(run_of):
    run = run_of(budget=0.5, shrink_to=0.3, target="size")
    seed = 5 * 6 + 6 + 6 * 3 + 3
    assert (run.budget, run.shrink_to) == pytest.approx((0.5 * seed, 0.3 * seed))
    assert run_of(budget=0.5, target="size").shrink_to == pytest.approx(0.5 * seed)


def test_stretches_are_numbered_and_the_seed_is_whole(run_of):
    run = run_of(cycles=2, budget=1.0, shrink_to=0.5)
    assert [one.number for one in run.stretches] == [0, 1, 2, 3, 4]
    assert run.seed.resized == frozenset()
    assert run.network(run.seed).predict is not None


def test_what_is_drawn_goes_by_the_key_of_the_stretch(run_of):
    one, other = (run_of(seed=seed) for seed in (3, 4))
    kernels = [run.drawn(run.seed, 1)["params"]["Dense_0"]["kernel"] for run in (one, other)]
    assert (np.asarray(kernels[0]) != np.asarray(kernels[1])).any()


def test_keys_of_stretches_are_their_own():
    keys = [jax.random.key_data(key_of(seed, n)).tolist() for seed, n in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(key) for key in keys}) == 3
