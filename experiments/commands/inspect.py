"""Shows the channel groups of a network, what they cost, and which widths are fixed and why.

    morph inspect --seed_network=resnet8
    morph inspect --model=package.module:attribute --input=1,224,224,3

The module is looked for in the current directory first. Its attribute is one of

    a Linen module, its class, or a function without arguments that returns one;
    an NNX module, its class, or a function of `rngs` (called with nnx.Rngs(0)) that returns one;
    a pair (fn, variables) with fn(variables, *inputs), or a function that returns one.

Nothing is computed: weights are abstract, so that a large model takes seconds and no memory. (Only
a function without arguments is called as it is, and may make arrays.)

    --input=1,224,224,3         float32; once for every input, in order
    --input=1,77:int32          another dtype
    --input=mask=1,77:bool      by keyword
    --kwargs=train=False        static keyword arguments, as in a Python call
    --cost=edge_tpu,flops       what to count, instead of flops,size; may be repeated. One of
                                flops, size, activation_bytes, activation_peak, energy; latency on
                                edge_tpu, here (this machine, timed once) or V100, ...; or a sum:
                                --cost="0.5*flops + 0.5*edge_tpu"
    --plot=costs.png            draws what every layer costs, and a roofline for every latency;
                                .png, .svg or .pdf
    --picture=channels.svg      draws the graph, with costs and reasons where you point;
                                .html is the same with highlighting, .png a picture of pixels
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
                                 size (axes of size 1 or 0 are left out); right: nothing to gain;
                                 opens_flops, opens_parameters: shares of the seed's that would go,
                                 too, with every group halved, if these axes could be halved
    unknown[]                    primitive, source: operations without a rule
    totals                       equations, seconds, flops, parameters; free_flops and
                                 free_parameters (shares that go when every group has width 0);
                                 halved_flops and halved_parameters (shares that are left when
                                 every group has half its width, rounded up)
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.vocabulary import SEED_NETWORKS
from morph.errors import ConfigError
from morph.imports import FORM

SEED_INPUT = "1,32,32,3"


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_string("model", None, f"The model to inspect: {FORM}.", flag_values=own)
    flags.DEFINE_enum(
        "seed_network",
        None,
        SEED_NETWORKS,
        "Or a network by its name in the registry.",
        flag_values=own,
    )
    flags.DEFINE_multi_string(
        "input",
        [],
        f"[NAME=]SIZES[:DTYPE], once per input; the default for a seed network is {SEED_INPUT}.",
        flag_values=own,
    )
    flags.DEFINE_string(
        "kwargs", "", "Static keyword arguments, e.g. train=False,depth=3.", flag_values=own
    )
    flags.DEFINE_multi_string(
        "cost", ["flops,size"], "Costs to show, separated by commas.", flag_values=own
    )
    flags.DEFINE_string(
        "plot", None, "Draw the costs into this .png, .svg or .pdf file.", flag_values=own
    )
    flags.DEFINE_string(
        "picture",
        None,
        "Draw the channel groups into this .svg, .html or .png file.",
        flag_values=own,
    )
    flags.DEFINE_bool("json", False, "Print one JSON document and nothing else.", flag_values=own)
    flags.DEFINE_integer("verbosity", 0, "1 shows the traceback of an error.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises unless one model is named, and what it takes."""
    if (options.model is None) == (options.seed_network is None):
        raise ConfigError(
            "give either --model=package.module:attribute or --seed_network=NAME, "
            f"found {'neither' if options.model is None else 'both'}"
        )
    if options.model and not options.input:
        raise ConfigError(
            "no --input; give the shape of every input of the model, e.g. --input=1,224,224,3 or "
            "--input=1,77:int32"
        )


COMMAND = Command(
    name="inspect",
    help=__doc__,
    declare=define,
    common=(
        "model",
        "seed_network",
        "input",
        "kwargs",
        "cost",
        "picture",
        "plot",
        "json",
        "verbosity",
    ),
    check=check,
)
