"""Times the operations of this machine, so that --target=here knows what they cost.

    morph calibrate

takes under two minutes on a quiet machine, and keeps the result in your cache folder, where
`morph run --target=here` and `reg.calibrate()` find it. A result that was measured on a busy
machine is not kept, unless you name a file:

    morph calibrate --fresh --output=this_machine.json
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from experiments.console.declared import Command
from experiments.console.flags import check_output


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_bool("fresh", False, "Time again, even if a result is kept.", flag_values=own)
    flags.DEFINE_float(
        "timing_seconds", 45.0, "How many seconds to time, besides compiling.", 1.0, flag_values=own
    )
    flags.DEFINE_string("output", None, "Also write the result to this file.", flag_values=own)


def check(options: flags.FlagValues, words: Sequence[str]) -> None:
    """Raises if the file cannot be written."""
    if options.output:
        check_output("output", options.output)


COMMAND = Command(
    name="calibrate",
    help=__doc__,
    declare=define,
    common=("fresh", "timing_seconds", "output"),
    check=check,
)
