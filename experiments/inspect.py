"""The channel groups of a network, what they cost, what is fixed and why: `morph inspect`."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags
from rich.console import Console

import regularizers as reg
from experiments import pictures
from experiments.commands.inspect import COMMAND, SEED_INPUT
from experiments.console.command import USER_ERRORS, launch
from experiments.console.flags import check_output
from experiments.console.terminal import terminal
from experiments.inspect_tables import show
from experiments.inspected import make_report, to_json
from experiments.models import (
    ADVICE,
    Input,
    InspectError,
    arguments,
    cannot_trace,
    function_of,
    parse_input,
    parse_kwargs,
    telling,
)
from experiments.networks import build
from experiments.pictures import svg
from morph.imports import find_attribute
from morph.untrusted import printable
from regularizers import json_files
from regularizers.errors import MorphError
from regularizers.vocabulary import check_name

_SEED_CLASSES = 10
_CONSOLE_WIDTH = 160  # where there is no terminal


def run(options: flags.FlagValues, command: str, console: Console) -> None:
    """Does what the flags ask for; with --verbosity=1 an error shows its traceback, too.

    Raises:
        InspectError: if it cannot be done.
    """
    try:
        inspect(options)
    except USER_ERRORS:
        if options.verbosity > 0:
            traceback.print_exc()
        raise


def inspect(options: flags.FlagValues) -> None:
    """Traces the model, and shows what was found."""
    if options.picture:
        _check_picture(options.picture)
    if options.plot:
        _check_plot(options.plot)
    costs = _cost_names(options.cost)
    inputs = [parse_input(text) for text in options.input]
    if options.seed_network and not inputs:
        inputs = [parse_input(SEED_INPUT)]
    kwargs = parse_kwargs(options.kwargs)
    name = options.model or options.seed_network
    model = find_attribute(name) if options.model else _seed_network(name, inputs)
    started = time.monotonic()
    fn, variables = function_of(model, name, inputs, kwargs)
    positional, named = arguments(inputs)
    with telling(cannot_trace(name, inputs), ADVICE):
        graph = reg.trace_channels(fn, variables, *positional, **named, **kwargs)
    report = make_report(name, inputs, graph, time.monotonic() - started, costs)
    if options.picture:
        svg.save(graph, options.picture, title=name)
    if options.plot:
        at = " and ".join(map(str, inputs))
        pictures.plot_costs(graph, report.costs, options.plot, f"{name} at {at}")
    if options.json:
        print(json_files.text(to_json(report), indent=2), end="")
        return
    show(report, terminal(width=None if sys.stdout.isatty() else _CONSOLE_WIDTH))
    for path in (options.picture, options.plot):
        if path:
            print(f"Drawn: {printable(path)}")


def _seed_network(name: str, inputs: Sequence[Input]) -> Any:
    shape = inputs[0].struct.shape
    if len(inputs) > 1 or len(shape) != 4:
        raise InspectError(
            f"--seed_network={name} takes one --input of batch, height, width, channels, e.g. "
            f"{SEED_INPUT}; found {' and '.join(map(str, inputs))}"
        )
    height, width, channels = shape[1:]
    return build(name, input_shape=(height, width, channels), num_classes=_SEED_CLASSES)


def _check_picture(path: str) -> None:
    """Raises before any work is done."""
    try:
        svg.writer_of(path)
    except MorphError as error:
        raise InspectError(f"--picture={path}: {error}") from None
    check_output("picture", path)


def _check_plot(path: str) -> None:
    """Raises before any work is done."""
    try:
        pictures.check_path(path)
    except MorphError as error:
        raise InspectError(f"--plot={path}: {error}") from None
    check_output("plot", path)


def _cost_names(given: Sequence[str]) -> tuple[str, ...]:
    """The names in `--cost`, each once; raises before any work is done."""
    names = tuple(dict.fromkeys(name.strip() for text in given for name in text.split(",")))
    for name in names:
        try:
            check_name(name)
        except MorphError as error:
            raise InspectError(f"--cost={name}: {error}") from None
    return names


def main(argv: Sequence[str]) -> None:
    """The entry point of `python -m experiments.inspect`; `argv[0]` is the program's name."""
    launch(COMMAND, argv, run)


if __name__ == "__main__":
    main(sys.argv)
