import json
import warnings

import jax
import numpy as np
import pytest
from rich.progress import Progress

import regularizers as reg
from regularizers import Calibration
from regularizers.calibration import measure
from regularizers.calibration.layers import Program, dense, relu
from regularizers.calibration.machine import cache_path, device_name
from regularizers.calibration.measure import BusyMachineWarning, summarise, work_of


def tiny():
    """Programs with two kinds of layers."""
    return tuple(
        Program(name=f"dense {rows} {c} x{n}", layers=(dense(c), relu) * n, shape=(rows, c))
        for rows, c, n in ((2, 5, 1), (2, 16, 3), (3, 11, 1), (7, 11, 2), (5, 40, 1), (3, 24, 2))
    )


@pytest.fixture(scope="module")
def works():
    return [work_of(program) for program in tiny()]


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
    noisy = measure.measure(
        tiny(), seconds=0.001, timer=lambda run: draw.lognormal(-9.0, 1.0), load=float
    )
    steady = measure.measure(tiny(), seconds=0.001, timer=lambda run: 1e-4, load=float)
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

    monkeypatch.setattr(measure, "measure", stub)
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
    with pytest.warns(UserWarning, match=r"not a calibration, and no JSON.*measured again"):
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
    monkeypatch.setattr(measure, "QUIET_SPREAD", -1.0)
    with pytest.warns(BusyMachineWarning, match=r"busy before or while it was.*spread by 0%"):
        found = reg.calibrate(progress=False)
    assert found.busy
    assert not cache_path().exists()
    with pytest.warns(BusyMachineWarning):
        reg.calibrate(path=home / "busy.json", progress=False)
    assert Calibration.load(home / "busy.json").busy


def test_without_a_cache_a_calibration_is_returned(monkeypatch, stubbed):
    monkeypatch.setattr(measure, "cache_path", lambda device: None)
    assert reg.calibrate(progress=False).programs
    assert len(stubbed) == 1


@pytest.mark.parametrize("named", [False, True])
def test_a_cache_that_cannot_be_written_loses_no_calibration(stubbed, home, named):
    (home / "morph").write_text("")  # no folder
    path = home / "morph" / "mine.json" if named else None
    with pytest.warns(UserWarning, match="cannot be kept, and serves this process alone"):
        assert reg.calibrate(path=path, progress=False).programs
    assert len(stubbed) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time(home, seconds):
    with pytest.raises(ValueError, match="seconds must be a finite number above 0"):
        reg.calibrate(cache=False, seconds=seconds)


def test_this_machine(home):
    """The whole road, really timed, on four programs; whatever the times are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BusyMachineWarning)
        found = measure.measure(tiny()[:4], seconds=0.2, progress=False)
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

    monkeypatch.setattr(measure, "Progress", Recorded)
    measure.measure(tiny()[:2], seconds=0.001, timer=lambda run: 1e-4, load=float, progress=shown)
    assert bars[0].finished
    assert bars[0].disable != shown
