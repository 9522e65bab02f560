"""One seed network, shrunk for several costs: what `morph targets` does."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import jax
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments.commands.targets import COMMAND
from experiments.console.command import launch
from experiments.console.display import Display, humanize
from experiments.console.flags import check_output, config_of
from experiments.pictures.plots import is_share
from experiments.subject import data_of, identity_of, seed_of
from morph.architecture.architecture import Architecture
from morph.budget.amounts import parse_budget
from morph.cycle.config import CycleConfig
from morph.cycle.members import Member, Trained
from morph.cycle.stamp import check_pair, stamped
from morph.cycle.sweep import Sweep
from morph.cycle.unused import UNUSED_BY_TARGETS, check_unused
from morph.cycle.workdir import claim_workdir, load_variables, save_variables
from morph.files import write_text
from morph.network import Variables
from morph.training.data import Batch
from regularizers import json_files
from regularizers.calibration.timing import compiled, interleaved


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A network, and what it costs in every target.

    Attributes:
        name: the target it was learned for, or `seed`.
        accuracy: on the test examples, a share; None if it was not asked for.
        metrics: all that were.
        costs: by target, in its unit.
        widths: of the groups.
        seconds: of one call on this machine, measured.
    """

    name: str
    accuracy: float | None
    metrics: Mapping[str, float]
    costs: Mapping[str, float]
    widths: Mapping[str, int]
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Study:
    """A seed network and what is learned from it; what is in the folder is not learned again.

    Attributes:
        workdir: the folder.
        config: how to learn.
        sweeps: for every target what learns for it; the first trains the seed.
    """

    workdir: Path
    config: CycleConfig
    sweeps: Mapping[str, Sweep]

    @property
    def first(self) -> Sweep:
        """Any of them: what is not about a cost, they have in common."""
        return next(iter(self.sweeps.values()))

    def budget(self, target: str) -> float:
        """What to shrink to, as a ratio to the seed's cost in a target."""
        cost = self.sweeps[target].cost
        return parse_budget(self.config.budget, cost) / cost.seed

    def seed(self) -> Trained:
        """The trained seed network."""
        kept, whole = self.workdir / "seed", self.first.whole
        if kept.exists():
            return self.first.tested(whole, load_variables(kept, self.first.traces.variables))
        (trained,) = self.first.train_seeds([self.config.seed])
        save_variables(kept, trained.variables)
        return trained

    def learned(self, target: str, seed: Variables) -> Trained:
        """The network that is learned for a target, from the seed's variables."""
        kept, sweep = self.workdir / target.replace("*", "x"), self.sweeps[target]
        file = kept.with_suffix(".json")
        if file.exists():
            architecture = Architecture.load(file)
            like = architecture.abstract(sweep.traces.variables)
            variables = load_variables(kept, like)
            check_pair(file, architecture, variables)
            return sweep.tested(architecture, variables)
        member = Member(budget=self.budget(target), seed=self.config.seed)
        (trained,) = sweep.shrink([member], {member.seed: seed}, sweep.pulling(seed))
        save_variables(kept, trained.variables)
        # The last, so that it is there only if all is.
        stamped(trained.architecture, trained.variables).save(file)
        return trained

    def priced(self, name: str, trained: Trained) -> Learned:
        """What a network costs in every target, and how good it is."""
        outcomes = {t: sweep.outcome(name, trained, 0) for t, sweep in self.sweeps.items()}
        return Learned(
            name=name,
            accuracy=trained.accuracy,
            metrics=trained.metrics,
            costs={target: outcome.cost for target, outcome in outcomes.items()},
            widths=trained.architecture.widths,
        )


def study(options: flags.FlagValues, console: Console) -> tuple[list[Learned], Study]:
    """Learns a network for every target; the seed comes first.

    Raises:
        one of `USER_ERRORS`.
    """
    config = config_of(options)
    check_unused(config, UNUSED_BY_TARGETS)
    if options.output:
        check_output("output", options.output)
    data = data_of(options, {})
    network, name = seed_of({}, options, data)
    test, workdir = data.test, Path(options.workdir)
    if isinstance(test, Batch):
        test = test.rows(slice(0, options.test_examples))
    with Display(console=console) as display:
        own = Study(
            workdir=workdir,
            config=config,
            sweeps={
                target: Sweep(
                    network=network,
                    train=data.whole("targets"),
                    test=test,
                    start=options.start,
                    config=replace(config, target=target, budget=CycleConfig().budget),
                    listener=display,
                )
                for target in options.targets
            },
        )
        for target, sweep in own.sweeps.items():
            sweep.check([own.budget(target)])
        identity = identity_of(name, data, options.width) | own.first.start_identity
        defaults = {one.name: options[one.name].default for one in fields(CycleConfig)}
        defaults["data_fingerprint"] = data.fingerprint
        claim_workdir(workdir, {**identity, **asdict(own.first.config)}, defaults)
        seed = own.seed()
        networks = {"seed": seed}
        for target in own.sweeps:
            networks[target] = own.learned(target, seed.variables)
    learned = [own.priced(name, trained) for name, trained in networks.items()]
    x = own.first.traces.x
    runs = [
        compiled(own.first.network.resized(one.architecture).predict, one.variables, x)
        for one in networks.values()
    ]
    times = np.median(interleaved(runs, seconds=options.timing_seconds), axis=1)
    return [replace(one, seconds=float(s)) for one, s in zip(learned, times, strict=True)], own


def table_of(learned: Sequence[Learned], sweeps: Mapping[str, Sweep]) -> Table:
    """Every network in every cost, as a ratio to the seed's."""
    seed = learned[0]
    metric = next(iter(seed.metrics))
    table = Table(title="Cost of each network, of the seed's", title_justify="left")
    table.add_column("learned for")
    for target, sweep in sweeps.items():
        cost = sweep.cost
        table.add_column(f"{target}\n{humanize(cost.seed, cost.unit)}", justify="right")
    table.add_column("measured here", justify="right")
    table.add_column(metric, justify="right")
    for one in learned:
        ratios = [f"{one.costs[t] / seed.costs[t]:.1%}" for t in sweeps]
        value = one.metrics[metric]
        shown = f"{value:.1%}" if is_share(metric) else f"{value:.4g}"
        measured = f"{humanize(one.seconds, 's')}  {one.seconds / seed.seconds:.1%}"
        table.add_row(one.name, *ratios, measured, shown)
    return table


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Learns, times, tells.

    Raises:
        one of `USER_ERRORS`.
    """
    started = time.monotonic()
    learned, own = study(options, console)
    if options.output:
        data = {
            "command": command,
            "seconds": round(time.monotonic() - started),
            "device": jax.devices()[0].device_kind,
            "machine": f"{platform.machine()}, python {platform.python_version()}",
            "jax": jax.__version__,
            "units": {target: sweep.cost.unit for target, sweep in own.sweeps.items()},
            "networks": [asdict(one) for one in learned],
        }
        write_text(options.output, json_files.text(data, indent=2))
    console.print(table_of(learned, own.sweeps))


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.targets`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
