"""Prunes a network with the weights that it has: what `morph prune` does."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from experiments.commands.prune import COMMAND, SETTINGS
from experiments.console.command import launch
from experiments.console.display import Display, result_of, result_table
from experiments.measured import measured
from experiments.report import write_report
from experiments.subject import Data, data_of, identity_of, seed_of
from experiments.tested import prompts, tested, written
from morph.architecture.architecture import Architecture
from morph.budget.prices import Prices
from morph.budget.traces import Traces
from morph.cycle.asked import target_cost
from morph.cycle.checks import check_structure
from morph.cycle.config import CycleConfig
from morph.cycle.given import fitted, read_start
from morph.cycle.measure import Measure
from morph.cycle.recipe import Recipe
from morph.cycle.stamp import stamp_of, stamped
from morph.cycle.workdir import locked, save_variables
from morph.errors import DataError
from morph.facts import facts_of, write_facts
from morph.files import together
from morph.imports import find_attribute
from morph.network import Network, Variables
from morph.pruning.prune import REFIT, prune, recalibrate
from morph.pruning.refit import refit
from morph.training.data import Batch, first_of, on_device
from morph.training.evaluate import Evaluator
from morph.training.task import total
from regularizers.patterns import parse

PRUNED = "pruned"
PASSES = 40  # of batches, that statistics are re-estimated on


def recipe_of(options: flags.FlagValues, data: Data) -> Recipe:
    """What is minded and measured; without labels what the network gives itself."""
    named: dict[str, Any] = {name: options[name].value for name in SETTINGS}
    config = CycleConfig(**named)
    labelled = first_of(data.train, "training set").y is not None
    alone = bool(config.distill) or not (labelled or options["loss"].present)
    return Recipe(config=replace(config, distill=float(alone), seed_steps=0))


def calibration(data: Data, recipe: Recipe, examples: int) -> list[Batch]:
    """What is measured on: some of the training examples, in batches of one size, on the device.

    Raises:
        DataError: if there are too few.
    """
    size = min(recipe.config.batch_size, examples)
    if isinstance(data.train, Batch):
        rng, there = np.random.default_rng(recipe.config.seed), data.train.examples
        if examples > there:
            raise DataError(f"--examples={examples}, but there are only {there} training examples")
        chosen = rng.choice(there, examples, replace=False)
        starts = range(0, examples - size + 1, size)
        found = [data.train.rows(np.sort(chosen[i : i + size])) for i in starts]
    else:
        found = list(itertools.islice(data.train.batches(0), max(1, examples // size)))
    return [on_device(batch) for batch in found]


def pruned(
    network: Network,
    variables: Variables,
    recipe: Recipe,
    traces: Traces,
    batches: Sequence[Batch],
    **options: Any,
) -> tuple[Architecture, Variables]:
    """The architecture at the budget, and its variables with their statistics re-estimated.

    Args:
        network: that is pruned.
        variables: its weights.
        recipe: what the loss is, the budget, the floors.
        traces: of the network.
        batches: to measure on.
        options: of `morph.prune`: `by`, `steps`, `heard`; by refit, what is left is refit, too.
    """
    config, key = recipe.config, jax.random.key(recipe.config.seed)
    has_statistics = len(variables) > 1
    loss = recipe.loss

    def outputs(variables: Variables, batch: Batch) -> Any:
        if not has_statistics:
            return network.predict(variables, batch.x)
        return network.forward(variables, batch.x, key)[0]

    def minded(variables: Variables, batch: Batch) -> Any:
        assert loss is not None
        return total(loss(outputs(variables, batch), batch))

    judged: dict[str, Any] = {"fn": outputs} if loss is None else {"loss": minded}
    architecture = prune(
        traces.graph,
        variables,
        target_cost(config, traces.graph),
        config.budget,
        batches=batches,
        blocks=config.blocks,
        round_to=config.round_to,
        min_width=config.min_width,
        floors=parse(config.floors, "floors", int),
        **judged,
        **options,
    )
    if options["by"] == REFIT:
        small = refit(traces.graph, architecture, variables, fn=outputs, batches=batches)
    else:
        small = architecture.take(variables)
    if has_statistics:
        again = itertools.islice(itertools.cycle(batches), max(PASSES, len(batches)))
        resized = network.resized(architecture)
        small = recalibrate(lambda own, batch: resized.forward(own, batch.x, key)[1], small, again)
    return architecture, small


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Prunes, tests, and writes what came out.

    Raises:
        one of `USER_ERRORS`.
    """
    started = time.monotonic()
    data = data_of(options, {})
    network, name = seed_of({}, options, data)
    recipe = recipe_of(options, data)
    recipe.check(network, data.train, data.test)
    config = recipe.config
    example = on_device(first_of(data.test, "test set").rows(slice(0, 1)))
    traces = Traces.of_seed(network, jax.random.key(config.seed), example.x)
    check_structure(config, traces.graph, started=True)
    if options.text_of is not None:
        text_of = find_attribute(options.text_of, "text_of")
        given = prompts(network, traces.variables, data.test)
    variables = fitted(read_start(options.start), traces.variables)
    measure = Measure(
        prices=Prices(traces=traces, target=partial(target_cost, config)),
        evaluator=Evaluator(data.test, recipe.metrics, decide=recipe.decide),
    )
    workdir = Path(options.workdir)
    with locked(workdir):
        batches = calibration(data, recipe, options.examples)
        with Display(console=console) as display:
            display.seed(traces.graph.widths)
            display.phase("prune", 100)
            architecture, small = pruned(
                network,
                variables,
                recipe,
                traces,
                batches,
                by=options.by,
                steps=options.prune_steps,
                heard=lambda share: display.update(round(100 * share)),
            )
        seed = Architecture.of_seed(traces.graph)
        both = [("seed", seed, variables), (PRUNED, architecture, small)]
        outcomes = [
            asdict(
                measure.outcome(
                    called, one, measure.of(jax.jit(network.resized(one).predict), own), 0
                )
            )
            for called, one, own in both
        ]
        times = measured(network, {"seed": seed, PRUNED: architecture}, example.x)
        resized = network.resized(architecture)
        answers = tested(resized, small, data.test)
        if options.text_of is not None:
            networks = {"seed": (network, variables), PRUNED: (resized, small)}
            answers |= written(networks, given, text_of)
        cost = target_cost(config, traces.graph)
        facts = facts_of(
            command,
            time.monotonic() - started,
            {
                "target": cost.name,
                "unit": cost.unit,
                "seed_cost": float(cost()),
                "cost": outcomes[-1]["cost"],
                **identity_of(name, data, options.width),
                "start_fingerprint": stamp_of(variables),
                "examples": sum(batch.examples for batch in batches),
                "config": asdict(config),
                "outcomes": outcomes,
            },
        )
        kept = stamped(replace(architecture, report=facts), small)
        with together(workdir) as aside:
            kept.save(aside / "architecture.json")
            save_variables(aside / "variables", small)
            write_facts(aside, facts | {"measured": times, "tested": answers})
        page = write_report(workdir)
    console.print(result_table([result_of(one, times.get(one["name"])) for one in outcomes]))
    console.print(f"Read {page}", soft_wrap=True)


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.prune`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
