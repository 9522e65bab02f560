"""The names of costs and penalties, for flags and messages: reading them loads no JAX.

What they stand for is in `named.COSTS` and `objective.penalties.PENALTIES`; a test compares.
"""

from __future__ import annotations

import math

from regularizers.costs.devices import DEVICES
from regularizers.errors import InputError
from regularizers.messages import near

COSTS = (
    "flops", "size", "activation_bytes", "activation_peak", "energy", "edge_tpu", "here", *DEVICES,
)  # fmt: skip
PENALTIES = ("group_lasso", "gamma", "gates")


def check_name(spec: str) -> tuple[tuple[float, str], ...]:
    """The weights and names in a cost's name, such as `0.5*flops + 0.5*V100`.

    Raises:
        ValueError: if a name is unknown (the message lists near matches), or a weight is none.
    """
    terms = []
    for part in spec.split("+"):
        weight, _, name = part.rpartition("*")
        name = name.strip()
        if name not in COSTS:
            among = "" if name == spec.strip() else f" in {spec!r}"
            raise InputError(f"no cost {name!r}{among}{near(name, COSTS)}")
        try:
            number = float(weight) if weight else 1.0
        except ValueError:
            number = math.nan
        if not 0.0 < number < math.inf:
            raise InputError(f"{weight!r} in {spec!r} is not a weight: it must be a number above 0")
        terms.append((number, name))
    return tuple(terms)
