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
    "run": "learns the structure of a seed network on data: the main job",
    "inspect": "shows what Morph finds in a model",
    "sweep": "accuracy against cost, at several budgets",
    "targets": "one seed network, shrunk for several costs",
    "calibrate": "times this machine's operations, for --target=here",
    "compare": "several runs side by side",
    "report": "writes the page of a run again",
    "prune": "shrinks a network with the weights that it has, without training",
    "retrain": "rebuilds a network from its JSON, and trains it",
    "compress": "makes a file of a learned network, smaller than its weights",
    "export": "writes files for elsewhere: StableHLO, ONNX, TFLite",
}
UNLISTED = ("fit_edge_tpu",)  # of use to who measures devices


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
