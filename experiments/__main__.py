"""Learns the structure of JAX/Flax networks under a budget of FLOPs, parameters, time or memory.

    morph COMMAND --flag=value ...        e.g. morph run --seed_network=mlp --dataset=digits

`morph COMMAND --help` shows an example and the flags that are needed most, `morph COMMAND
--helpfull` shows all flags. `python -m experiments.COMMAND` is the same as `morph COMMAND`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import morph
from experiments.commands import COMMANDS, answer
from experiments.console.help import STATUS, filled
from experiments.console.stop import from_the_first_import
from regularizers.messages import near


def main(argv: Sequence[str] | None = None) -> None:
    """The entry point of `morph` and `python -m experiments`; `argv[0]` is the program's name."""
    if argv is None:
        from_the_first_import(script=True)
        argv = sys.argv
    name = argv[1] if len(argv) > 1 else ""
    if name in ("", "-h", "--help", "--helpfull", "help"):
        print("\n".join(overview()))
        return
    if name == "--version":
        print(f"morph {morph.__version__}")
        return
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}{near(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    rest = [f"morph {name}", *argv[2:]]
    answer(name, rest)
    place = "experiments.report.__main__" if name == "report" else f"experiments.{name}"
    command: Any = importlib.import_module(place)
    command.main(rest)


def overview() -> list[str]:
    """What `morph --help` prints."""
    lines = [f"  {name:11}{about}" for name, about in COMMANDS.items()]
    return [str(__doc__), *lines, "", *filled(STATUS, "")]


if __name__ == "__main__":
    main()
