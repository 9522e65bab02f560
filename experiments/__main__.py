"""All commands as one, which works in any directory, also in one with an `experiments` of its own.

    morph COMMAND --flag=value ...        e.g. morph run --seed_network=mlp --dataset=digits

is `python -m experiments.COMMAND --flag=value ...`; `morph COMMAND --help` tells its flags.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app

from regularizers.messages import near

COMMANDS: Mapping[str, str] = {
    "run": "learns the structure of a seed network on data: the main job",
    "sweep": "accuracy against cost, at several budgets",
    "targets": "one seed network, shrunk for several costs",
    "retrain": "rebuilds a network from its JSON, and trains it",
    "prune": "prunes a trained network to a budget, without training",
    "compress": "makes a file of a learned network, smaller than its weights",
    "export": "writes files for elsewhere: StableHLO, ONNX, TFLite",
    "inspect": "shows what Morph finds in a model",
    "compare": "several runs side by side",
    "report": "writes the page of a run again",
}


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of `morph` and `python -m experiments`; `argv[0]` is the program's name."""
    argv = list(sys.argv if argv is None else argv)
    name = argv[1] if len(argv) > 1 else ""
    if name in ("", "-h", "--help", "help"):
        print(__doc__)
        for one, about in COMMANDS.items():
            print(f"  {one:10}{about}")
        return
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}{near(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    place = "experiments.report.__main__" if name == "report" else f"experiments.{name}"
    rest = [f"morph {name}", *argv[2:]]
    command: Any = importlib.import_module(place)
    sys.argv = rest
    if name == "run":  # its flags are those of the whole process
        app.run(command.main, argv=rest, flags_parser=command.parsed)
    else:
        command.main(rest)


if __name__ == "__main__":
    main()
