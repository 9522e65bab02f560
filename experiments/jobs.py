"""Commands as jobs, of this machine or of a Slurm cluster; submitit starts them and waits."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from morph.errors import ConfigError, need

# By what `--how` says.
CLUSTERS = ("local", "slurm")


def parameters_of(text: str) -> dict[str, Any]:
    """What Slurm is asked for: `partition=gpu,time=60,gpus_per_node=1`.

    Raises:
        ConfigError: naming what is no `NAME=VALUE`.
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--slurm: {part!r} is not NAME=VALUE; e.g. partition=gpu,time=60")
        found[name.strip()] = int(value) if value.strip().isdecimal() else value.strip()
    return found


def run_jobs(
    commands: Mapping[str, Sequence[str]],
    folder: Path,
    how: str,
    *,
    at_once: int,
    slurm: Mapping[str, Any],
    env: Mapping[str, str],
    done: Callable[[str, str | None], None] = lambda name, why: None,
) -> dict[str, str]:
    """Runs commands as jobs, and waits for all; one that fails keeps no other from its end.

    Args:
        commands: by name.
        folder: for what jobs say, and the library's own files.
        how: one of `CLUSTERS`.
        at_once: jobs at a time, of this machine; Slurm has its own limits.
        slurm: see `parameters_of`; minutes for `time`.
        env: of the commands, beside what is there.
        done: hears of each job as it ends, and why it failed; in any order.

    Returns:
        For each that failed, the last line that it said.

    Raises:
        MissingExtraError: without submitit. ConfigError: if jobs cannot be submitted.
    """
    submitit = _submitit()
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=how)
        executor.update_parameters(timeout_min=int(slurm.get("time", 24 * 60)), name="morph")
        if how == "slurm":
            asked = {f"slurm_{n}": value for n, value in slurm.items() if n != "time"}
            executor.update_parameters(**asked)
    except (RuntimeError, ValueError, TypeError, NameError) as error:
        raise ConfigError(f"--how={how}: jobs cannot be submitted: {error}") from error

    def one(name: str) -> tuple[str, str | None]:
        command = submitit.helpers.CommandFunction(
            list(commands[name]), verbose=False, env=dict(env)
        )
        try:
            executor.submit(command).result()
            why = None
        except Exception as error:  # whatever a cluster does to a job
            why = _last(str(error))
        done(name, why)
        return name, why

    with ThreadPoolExecutor(at_once if how == "local" else max(1, len(commands))) as pool:
        ended = list(pool.map(one, commands))
    return {name: why for name, why in ended if why is not None}


def _submitit() -> Any:
    try:
        importlib.import_module("submitit.helpers")
        return sys.modules["submitit"]
    except ModuleNotFoundError as error:
        need("--how=local and --how=slurm", error, "cluster")
        raise


def _last(text: str) -> str:
    """The `error:` line of a command that failed, else the last one that says something.

    Args:
        text: the library's, with the command's own lines, and below them where its logs are.
    """
    told = re.findall(r"(?m)(?:^|: )(error: .+)$", text)
    own = text.split("You can check full logs")[0]
    lines = [line.strip() for line in own.splitlines() if line.strip(" -\n")]
    return str((told or lines or ["it said nothing"])[-1]).strip()
