import itertools
import json
import sys
import warnings

import jax
import numpy as np
import pytest
from rich.progress import Progress

import regularizers as reg
from regularizers import Calibration
from regularizers.calibration import timing
from regularizers.calibration.fit import fit, nonnegative, robust
from regularizers.calibration.machine import cache_path, device_name
from regularizers.calibration.measure import (
    BusyMachineWarning,
    measure,
    summarise,
    work_of,
)
from regularizers.calibration.programs import Program, conv, dense, designed, relu
from regularizers.costs.calibrated import amounts
from regularizers.costs.form import EXACT

MODULE = sys.modules["regularizers.calibration.measure"]


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


# ---- The designed set


def test_designed_programs_have_names_of_their_own():
    names = [program.name for program in designed()]
    assert len(set(names)) == len(names)
    assert 100 <= len(names) <= 200


def test_designed_programs_cover_every_kind(designed_works):
    seen = set()
    for work in designed_works:
        found = amounts(work, EXACT, 1e6)
        seen |= {name.split(":")[0] for name, column in found.items() if column.any()}
    kinds = {name.split(":")[0] for name in amounts(designed_works[0], EXACT, 1e6)}
    assert seen == kinds


def test_neighbours_in_the_designed_set_are_of_different_families():
    """So that no fold takes a whole family out."""
    families = [program.name.split()[0] for program in designed()]
    for fold, family in itertools.product(range(5), ("conv", "dense", "tokens", "residual")):
        inside = [f for i, f in enumerate(families) if i % 5 == fold]
        assert 0 < inside.count(family) < families.count(family)


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


# ---- Timing, with a timer that is told what to say


def test_rounds_are_medians_of_calls_that_fill_the_share():
    seconds = itertools.count(1)
    calls = []

    def timer(run):
        calls.append(run)
        return float(next(seconds))

    # Warm-ups say 1, 2. Round one: 3 warms a, then 4, 5; 6 warms b, then 7, 8. And so on.
    times = timing.interleaved(["a", "b"], seconds=8.0, rounds=2, timer=timer)
    assert times.tolist() == [[4.5, 10.5], [7.5, 13.5]]
    assert calls == [*"ab", *"aaa", *"bbb", *"aaa", *"bbb"]


def test_short_programs_are_called_more_often():
    calls = {"short": 0, "long": 0}

    def timer(run):
        calls[run] += 1
        return {"short": 0.01, "long": 1.0}[run]

    timing.interleaved(["short", "long"], seconds=2.0, rounds=2, timer=timer)
    assert calls["long"] == 1 + 2 * (1 + 2)
    assert 100 <= calls["short"] <= 105


def test_a_call_is_waited_for():
    run = timing.compiled(lambda x: x @ x, np.ones((3, 3), np.float32))
    assert timing.timed(run) > 0.0
    assert run().tolist() == [[3.0] * 3] * 3


# ---- Regression


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


# ---- A busy machine


def times_with(spread):
    """The same times in every round, but for a spread."""
    return np.linspace(1.0, 2.0, 6)[:, None] * 1e-4 * (1.0 + spread * np.linspace(-1.0, 1.0, 9))


@pytest.mark.parametrize(
    ("spread", "load", "busy"), [(0.01, 0.0, False), (0.3, 0.0, True), (0.01, 1e4, True)]
)
def test_a_busy_machine_is_noticed(works, spread, load, busy):
    device = jax.local_devices()[0]
    found = summarise(works, times_with(spread), device=device, load=load)
    assert found.busy == busy
    assert found.spread == pytest.approx(spread)  # half of the range lies between the quartiles
    assert found.error_bar >= spread


def test_a_busy_machine_widens_the_error_bars(works):
    device = jax.local_devices()[0]
    quiet, busy = (summarise(works, times_with(s), device=device, load=0.0) for s in (0.01, 0.4))
    assert busy.error_bar > quiet.error_bar + 0.1
    assert busy.held_out_error == pytest.approx(quiet.held_out_error)


def test_a_noisy_timer_is_noticed():
    draw = np.random.default_rng(0)
    noisy = measure(tiny(), seconds=0.001, timer=lambda run: draw.lognormal(-9.0, 1.0), load=float)
    steady = measure(tiny(), seconds=0.001, timer=lambda run: 1e-4, load=float)
    assert noisy.busy
    assert not steady.busy
    assert steady.spread == 0.0
    assert noisy.error_bar > steady.error_bar


# ---- The public function


@pytest.fixture
def stubbed(monkeypatch, works):
    """`reg.calibrate` with a machine that takes as long every time; counts measurements."""
    made = []

    def stub(programs, *, seconds, progress, device):
        made.append(len(programs))
        return summarise(works, times_with(0.0), device=device, load=0.0)

    monkeypatch.setattr(MODULE, "measure", stub)
    return made


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_is_measured_once_and_kept(stubbed, home):
    first = reg.calibrate(progress=False)
    path = cache_path()
    assert path.parent == home / "morph" / "calibration"
    assert Calibration.load(path) == first
    assert reg.calibrate(progress=False) == first
    assert len(stubbed) == 1


def test_fresh_ones_are_not_kept(stubbed, home):
    reg.calibrate(cache=False, progress=False)
    reg.calibrate(cache=False, progress=False)
    assert len(stubbed) == 2
    assert list(home.iterdir()) == []


def test_another_path(stubbed, home, tmp_path):
    path = tmp_path / "mine.json"
    first = reg.calibrate(path=path, progress=False)
    assert Calibration.load(path) == first
    assert reg.calibrate(path=str(path), progress=False) == first
    assert len(stubbed) == 1
    assert not cache_path().exists()


def test_a_corrupted_cache_is_made_anew(stubbed, home):
    cache_path().parent.mkdir(parents=True)
    cache_path().write_text('{"format": "morph cal')
    with pytest.warns(UserWarning, match=r"not a calibration, and no JSON.*made anew"):
        fresh = reg.calibrate(progress=False)
    assert Calibration.load(cache_path()) == fresh


def test_a_file_that_was_named_is_not_overwritten(stubbed, home, tmp_path):
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps({"format": "morph architecture 1"}))
    with pytest.raises(ValueError, match=r"architecture.json: not a calibration.*another path"):
        reg.calibrate(path=path, progress=False)
    assert "architecture 1" in path.read_text()
    assert stubbed == []


def test_a_busy_machine_is_told(monkeypatch, stubbed, home):
    monkeypatch.setattr(MODULE, "QUIET_SPREAD", -1.0)
    with pytest.warns(BusyMachineWarning, match=r"busy before or while it was.*spread by 0%"):
        found = reg.calibrate(progress=False)
    assert found.busy
    assert not cache_path().exists()
    with pytest.warns(BusyMachineWarning):
        reg.calibrate(path=home / "busy.json", progress=False)
    assert Calibration.load(home / "busy.json").busy


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time(home, seconds):
    with pytest.raises(ValueError, match="positive number of seconds"):
        reg.calibrate(cache=False, seconds=seconds)


def test_the_path_names_device_and_versions(monkeypatch, home):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    plain = cache_path()
    assert jax.__version__ in plain.name
    assert plain.name.startswith(device_name(jax.local_devices()[0]).split()[0].lower()[:3])
    assert set(plain.stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    assert cache_path() != plain
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_path()).startswith("/somewhere/.cache/morph/calibration/")


def test_this_machine(home):
    """The whole road, really timed, on four programs; whatever the times are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BusyMachineWarning)
        found = measure(tiny()[:4], seconds=0.2, progress=False)
    graph = reg.trace_channels(tiny()[1], *tiny()[1].abstract())
    seconds = reg.latency(graph, found)()
    assert 1e-7 < seconds < 10.0
    assert found.programs == 4
    assert found.device == device_name(jax.local_devices()[0])
    assert found.versions["jax"] == jax.__version__
    found.save(home / "it.json")
    assert reg.latency(graph, Calibration.load(home / "it.json"))() == seconds


@pytest.mark.parametrize("shown", [True, False])
def test_the_bar_goes_to_its_end(monkeypatch, shown):
    bars = []

    class Recorded(Progress):
        def __init__(self, **options):
            bars.append(self)
            super().__init__(**options)

    monkeypatch.setattr(MODULE, "Progress", Recorded)
    measure(tiny()[:2], seconds=0.001, timer=lambda run: 1e-4, load=float, progress=shown)
    assert bars[0].finished
    assert bars[0].disable != shown
