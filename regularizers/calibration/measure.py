"""What the operations of this machine cost: timed once, fitted, and kept in a file.

    calibration = reg.calibrate()
    latency = reg.latency(graph, calibration)

`docs/calibrate.md` says what is timed, and how well it predicts.
"""

from __future__ import annotations

import contextlib
import datetime
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from regularizers.calibration.fit import fit
from regularizers.calibration.layers import Program
from regularizers.calibration.machine import cache_path, cores, device_name, load_average, versions
from regularizers.calibration.programs import designed
from regularizers.calibration.timing import ROUNDS, Timer, compiled, interleaved, timed
from regularizers.channels.trace import trace_channels
from regularizers.checks import FLAG, PATH, a, checked, number
from regularizers.costs.calibrated import Calibration
from regularizers.costs.work import Work, workload_of
from regularizers.errors import InputError

SECONDS = 45.0
QUIET_SPREAD = 0.15  # interquartile range over median; a quiet machine stays below
QUIET_LOAD = 0.5  # of others, per core


class BusyMachineWarning(UserWarning):
    """Something else used the machine while it was calibrated."""


@checked(
    cache=FLAG,
    path=PATH,
    seconds=number(above=0.0),
    progress=FLAG,
    device=a(jax.Device, "a device, as jax.devices() gives them"),
)
def calibrate(
    *,
    cache: bool = True,
    path: str | Path | None = None,
    seconds: float = SECONDS,
    progress: bool = True,
    device: jax.Device | None = None,
) -> Calibration:
    """Times this machine's operations, or reads what was found the last time.

    Args:
        cache: whether a calibration kept in a file will do, and whether to keep a new one. What was
            found on a busy machine is not kept, unless `path` is given; what cannot be kept is
            returned all the same.
        path: the file; by default one per device and versions, see `cache_path`.
        seconds: how long to time, about; compilation comes on top (about half a minute).
        progress: whether to show a bar.
        device: what to time; JAX's default device if not given.

    Returns:
        What kernels cost here, for `reg.latency(graph, calibration)`.

    Raises:
        ValueError: if the file given by `path` is no calibration, or `seconds` is not positive.

    Warns:
        BusyMachineWarning: if something else used the machine meanwhile.
        UserWarning: if the calibration cannot be kept, or the one that was kept cannot be read.

    Example:
        >>> calibration = reg.calibrate()                  # doctest: +SKIP
        >>> reg.latency(graph, calibration)()              # doctest: +SKIP
    """
    device = device or jax.local_devices()[0]
    file = Path(path) if path is not None else cache_path(device)
    if cache and file is not None:
        try:
            return Calibration.load(file)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:
            if path is not None:
                raise InputError(f"{error}. Delete the file, or give another path") from None
            warnings.warn(f"{error}. It is measured again", UserWarning, stacklevel=2)
    calibration = measure(designed(), seconds=seconds, progress=progress, device=device)
    if calibration.busy:
        warnings.warn(_complaint(calibration), BusyMachineWarning, stacklevel=2)
    if cache and file is not None and (path is not None or not calibration.busy):
        try:
            calibration.save(file)
        except OSError as error:
            told = f"the calibration cannot be kept, and serves this process alone: {error}"
            warnings.warn(told, UserWarning, stacklevel=2)
    return calibration


def measure(
    programs: Sequence[Program],
    *,
    seconds: float = SECONDS,
    progress: bool = False,
    device: jax.Device | None = None,
    timer: Timer = timed,
    load: Callable[[], float] | None = None,
) -> Calibration:
    """Compiles, times and fits programs.

    Args:
        programs: what to time.
        seconds: how long, about.
        progress: whether to show a bar.
        device: what to time.
        timer: measures one call.
        load: how many processes others run, asked before anything is compiled.

    Raises:
        ValueError: if `seconds` is not positive.
    """
    if not seconds > 0.0:
        raise InputError(f"calibration needs a positive number of seconds, found {seconds}")
    device = device or jax.local_devices()[0]
    others = (load or load_average)()
    with _bar(len(programs) + ROUNDS, progress) as advance, jax.default_device(device):
        works, runs = [], []
        for program in programs:
            works.append(work_of(program))
            runs.append(compiled(program, *program.arrays()))
            advance()
        times = interleaved(runs, seconds=seconds, timer=timer, advance=advance)
    return summarise(works, times, device=device, load=others)


def work_of(program: Program) -> Work:
    """What the kernels of a program do."""
    graph = trace_channels(program, *program.abstract())
    return workload_of(graph).at(np.asarray(list(graph.widths.values()), np.float64))


def summarise(
    works: Sequence[Work], times: np.ndarray, *, device: jax.Device, load: float
) -> Calibration:
    """From times to prices.

    Args:
        works: what the programs do.
        times: seconds per call [programs, rounds].
        device: what was timed.
        load: how many processes others ran before.
    """
    found = fit(works, np.median(times, axis=1))
    errors = np.abs(found.held_out)
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75), axis=1)
    spread = float(np.median((high - low) / middle))
    return Calibration(
        seconds_per_unit=found.seconds_per_unit,
        cache_bytes=found.cache_bytes,
        device=device_name(device),
        versions=versions(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        programs=len(works),
        held_out_error=float(np.median(errors)),
        spread=spread,
        error_bar=float(np.hypot(np.quantile(errors, 2 / 3), spread)),
        busy=spread > QUIET_SPREAD or load > QUIET_LOAD * cores(),
    )


def _complaint(calibration: Calibration) -> str:
    return (
        "the machine was busy before or while it was calibrated: repeats of a program spread by "
        f"{calibration.spread:.0%} (quiet is below {QUIET_SPREAD:.0%}); predictions may be off "
        f"by {calibration.error_bar:.0%}. Stop what else runs and calibrate again"
    )


@contextlib.contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[], Any]]:
    with Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("Timing this machine", total=total)
        yield lambda: bar.advance(task)
