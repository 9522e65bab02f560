"""All commands: what each is for, and what is known of it before it is loaded.

Nothing here loads JAX: help and a mistyped flag are answered at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

from experiments.console.command import command_of, ending
from experiments.console.declared import Command

COMMANDS: Mapping[str, str] = {
    "run": "learns the structure of a seed network on data: the main command",
    "inspect": "shows the channel groups, costs and fixed widths of a model",
    "sweep": "draws accuracy against cost, at several budgets",
    "targets": "shrinks one seed network for several costs, and times the results",
    "calibrate": "times this machine's operations, for --target=here",
    "compare": "shows several runs side by side",
    "report": "writes the report of a run again",
    "prune": "shrinks a trained network, without training it further",
    "retrain": "rebuilds a network from its JSON file, and trains it",
    "compress": "prunes, quantizes and codes the weights of a learned network into a file",
    "export": "writes a learned network as StableHLO, ONNX or TFLite",
    "completion": "prints what makes a shell complete commands and flags",
}
UNLISTED = ("fit_edge_tpu",)  # only of use for measuring devices


def declared(name: str) -> Command:
    """A command's declaration."""
    command: Command = importlib.import_module(f"experiments.commands.{name}").COMMAND
    return command


def answer(name: str, argv: Sequence[str]) -> None:
    """Ends the process if a command line asks for help, or holds what cannot be taken.

    Args:
        name: of the command.
        argv: the command line; `argv[0]` is the program's name.
    """
    with ending(command_of(name, argv)):
        command = declared(name)
        options, _ = command.read(argv)
        if told := command.told(options):
            print(told)
            sys.exit(0)
