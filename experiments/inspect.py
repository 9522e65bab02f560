"""Shows the channel groups of a network, what they cost, and what is fixed and why.

    python -m experiments.inspect --seed_network=resnet8
    python -m experiments.inspect --model=package.module:attribute --input=1,224,224,3

MODEL is looked for in the current directory first. Its attribute is one of

    a Linen module, its class, or a function without arguments that returns one;
    an NNX module, its class, or a function of `rngs` (called with nnx.Rngs(0)) that returns one;
    a pair (fn, variables) with fn(variables, *inputs), or a function that returns one.

Nothing is computed: weights are abstract, so a large model takes seconds and no memory (only a
function without arguments is called as it is, and makes what it makes).

    --input=1,224,224,3         float32; once for every input, in order
    --input=1,77:int32          another dtype
    --input=mask=1,77:bool      by keyword
    --kwargs=train=False        static keyword arguments, as in a Python call
    --cost=edge_tpu,flops       what to count, instead of flops,size; again and again, too. One of
                                flops, size, activation_bytes, activation_peak, energy; latency on
                                edge_tpu, here (this machine, timed once) or V100, ...; or a sum:
                                --cost="0.5*flops + 0.5*edge_tpu"
    --plot=costs.png            draws what every layer costs, and a roofline for every latency;
                                .png, .svg or .pdf
    --picture=channels.svg      draws the graph; .html is the same with highlighting
    --json                      prints one JSON document instead of the tables

The JSON has the keys

    version, model               1, and what was asked for
    inputs[]                     name (null by position), shape, dtype
    groups[]                     name, width, exact, why_inexact, members[]: path, axis, kind,
                                 produces, consumes
    layers[]                     layer, flops, flops_share, parameters, parameters_share,
                                 operations[]: op, kernel, in, out (widths), in_axis, out_axis
                                 (a number, a group, {"sum": []} or {"product": []}), count
    costs[]                      of every --cost: name, unit, seed, halved (the share that is left
                                 when every group has half its width, rounded up), layers[]:
                                 layer, detail, cost, share; all shares add up to 1
    pins[]                       reason, source (file:line, "" where unknown), axes[]: path, axis,
                                 size; axes of size 1 or 0 are left out
    unknown[]                    primitive, source: operations without a rule
    totals                       equations, seconds, flops, parameters; free_flops and
                                 free_parameters (shares that go when every group has width 0);
                                 halved_flops and halved_parameters (shares that are left when
                                 every group has half its width, rounded up)
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags

import regularizers as reg
from experiments.console.command import USER_ERRORS, command_of, ending
from experiments.console.flags import check_output, read_flags
from experiments.console.terminal import terminal
from experiments.inspect_tables import show
from experiments.inspected import COSTS, make_report, to_json
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
from experiments.networks import SEED_NETWORKS, build
from experiments.pictures import cost_plots, svg
from morph.imports import find_attribute
from morph.untrusted import printable
from regularizers import json_files
from regularizers.errors import MorphError
from regularizers.named import check_name

_SEED_INPUT = "1,32,32,3"
_SEED_CLASSES = 10
_CONSOLE_WIDTH = 160  # where there is no terminal


def define_flags() -> flags.FlagValues:
    """The flags of this command, which shares names, and no values, with experiments.run."""
    own = flags.FlagValues()
    flags.DEFINE_string("model", None, "package.module:attribute to inspect.", flag_values=own)
    flags.DEFINE_enum(
        "seed_network", None, list(SEED_NETWORKS), "Or a network of the registry.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        f"[NAME=]SIZES[:DTYPE], once per input; {_SEED_INPUT} for a seed network if not given.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "kwargs", "", "Static keyword arguments, e.g. train=False,depth=3.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "cost", [",".join(COSTS)], "Costs to show, separated by commas.", flag_values=own
    )
    flags.DEFINE_string(
        "plot", None, "Draw the costs into this .png, .svg or .pdf file.", flag_values=own
    )
    flags.DEFINE_string("picture", None, "Draw into this .svg or .html file.", flag_values=own)
    flags.DEFINE_bool("json", False, "Print one JSON document, nothing else.", flag_values=own)
    flags.DEFINE_integer("verbosity", 0, "1 shows the traceback of an error.", flag_values=own)
    flags.DEFINE_bool("help", False, "Show this help.", short_name="?", flag_values=own)
    return own


# ---- The command


def run(options: flags.FlagValues) -> None:
    """Does what the flags ask for.

    Raises:
        InspectError: if it cannot be done.
    """
    if (options.model is None) == (options.seed_network is None):
        raise InspectError(
            "give either --model=package.module:attribute or --seed_network=NAME, "
            f"found {'neither' if options.model is None else 'both'}"
        )
    if options.picture:
        _check_picture(options.picture)
    if options.plot:
        _check_plot(options.plot)
    costs = _cost_names(options.cost)
    inputs = [parse_input(text) for text in options.input]
    if options.seed_network and not inputs:
        inputs = [parse_input(_SEED_INPUT)]
    if not inputs:
        raise InspectError(
            "no --input; give the shape of every input of the model, e.g. --input=1,224,224,3 or "
            "--input=1,77:int32"
        )
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
        cost_plots.plot_costs(graph, report.costs, options.plot, f"{name} at {at}")
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
            f"{_SEED_INPUT}; found {' and '.join(map(str, inputs))}"
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
        cost_plots.check_path(path)
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
    options = define_flags()
    with ending(command_of("experiments.inspect", argv)):
        rest = read_flags(options, argv)
        if options.help:
            print(f"{__doc__}\n{options.get_help()}")
            return
        if len(rest) > 1:
            raise InspectError(f"unexpected arguments: {' '.join(rest[1:])}; flags start with --")
        try:
            run(options)
        except USER_ERRORS:
            if options.verbosity > 0:
                traceback.print_exc()
            raise


if __name__ == "__main__":
    main(sys.argv)
