import numpy as np
import pytest

from regularizers.calibration.fit import fit, nonnegative, robust
from regularizers.calibration.layers import Program, dense, relu
from regularizers.calibration.measure import work_of
from regularizers.calibration.programs import designed
from regularizers.costs.calibrated import amounts
from regularizers.costs.form import EXACT


def tiny():
    """Programs with two kinds of layers."""
    return tuple(
        Program(name=f"dense {rows} {c} x{n}", layers=(dense(c), relu) * n, shape=(rows, c))
        for rows, c, n in ((2, 5, 1), (2, 16, 3), (3, 11, 1), (7, 11, 2), (5, 40, 1), (3, 24, 2))
    )


@pytest.fixture(scope="module")
def works():
    return [work_of(program) for program in tiny()]


@pytest.fixture(scope="module")
def designed_works():
    return [work_of(program) for program in designed()]


def test_nonnegative_least_squares_by_hand():
    matrix = np.asarray([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert nonnegative(matrix, np.asarray([3.0, 4.0, 9.0])) == pytest.approx([3.0, 2.0])
    assert nonnegative(matrix, np.asarray([3.0, -4.0, 9.0])) == pytest.approx([3.0, 0.0])


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_least_squares_is_optimal(seed):
    """Karush, Kuhn and Tucker: no gradient where x > 0, and none downhill where x = 0."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=(17, 11)) * 10.0 ** draw.uniform(-9, 3, size=11)
    matrix[:, 3] = matrix[:, 5]  # not independent
    target = draw.normal(size=17)
    x = nonnegative(matrix, target)
    gradient = matrix.T @ (matrix @ x - target) / np.linalg.norm(matrix, axis=0)
    assert (x >= 0.0).all()
    assert np.abs(gradient[x > 0.0]).max(initial=0.0) < 1e-8
    assert gradient.min() > -1e-8


def test_robust_regression_is_hardly_moved_by_outliers():
    draw = np.random.default_rng(0)
    matrix = draw.uniform(0.1, 1.0, size=(200, 4)) * [1.0, 1e3, 1e6, 1.0]
    truth = matrix @ np.asarray([2e-5, 2e-8, 2e-11, 0.0])
    seconds = truth.copy()
    seconds[::10] *= 5.0  # something else ran
    seconds[5::20] *= 0.2
    plain = matrix @ nonnegative(matrix / seconds[:, None], np.ones(200))
    robustly = matrix @ robust(matrix, seconds)
    errors = [np.median(np.abs(found / truth - 1.0)) for found in (plain, robustly)]
    assert errors[1] < 0.05
    assert errors[1] < errors[0] / 3


TRUE_CACHE = 2.0**22


def priced(works):
    """Prices that a fit has to find again, and the seconds that they make."""
    tables = [amounts(work, EXACT, TRUE_CACHE) for work in works]
    names = [name for name in tables[0] if any(t[name].any() for t in tables)]
    draw = np.random.default_rng(1)
    totals = np.asarray([[t[name].sum() for name in names] for t in tables])
    prices = draw.uniform(0.5, 2.0, len(names)) * 1e-4 / np.maximum(totals.max(axis=0), 1e-9)
    return dict(zip(names, prices, strict=True)), totals @ prices


def test_a_fit_recovers_what_made_the_times(designed_works):
    prices, seconds = priced(designed_works)
    found = fit(designed_works, seconds)
    assert found.cache_bytes == TRUE_CACHE
    assert np.median(np.abs(found.held_out)) < 1e-3
    assert found.seconds_per_unit.keys() == prices.keys()
    for name in ("call: calls", "conv: flops", "dense: kernels", "elementwise: operations"):
        assert found.seconds_per_unit[name] == pytest.approx(prices[name], rel=0.01), name

    draw = np.random.default_rng(2)
    disturbed = seconds * np.where(draw.random(len(seconds)) < 0.08, 4.0, 1.0)
    robustly = fit(designed_works, disturbed)
    assert np.median(np.abs(robustly.held_out)) < 0.05


def test_too_few_programs(works):
    with pytest.raises(ValueError, match="found 1 programs and 1 times"):
        fit(works[:1], np.ones(1))
    with pytest.raises(ValueError, match="found 6 programs and 2 times"):
        fit(works, np.ones(2))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_impossible_times(works, bad):
    with pytest.raises(ValueError, match=f"above zero, found {bad} s"):
        fit(works, np.asarray([1.0] * 5 + [bad]))
