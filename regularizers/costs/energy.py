"""Energy of one inference: arithmetic, weights from DRAM, activations through on-chip memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax.numpy as jnp

from regularizers.channels.graph import GRAPH, ChannelGraph
from regularizers.checks import NAME, a, checked
from regularizers.costs.cost import Cost
from regularizers.costs.form import Form
from regularizers.costs.work import Work, cost_of_work
from regularizers.errors import InputError
from regularizers.messages import near


@dataclass(frozen=True, kw_only=True)
class EnergyTable:
    """Energies of single operations.

    Attributes:
        multiply_joules, add_joules: of one scalar operation, by type.
        dram_joules_per_byte: to fetch a weight, every time a kernel runs.
        sram_joules_per_byte: to read or write an activation.
        source: where the figures are from.

    Raises:
        ValueError: if a figure is not a positive finite number, or a type has only one of two.
    """

    multiply_joules: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            {"int8": 0.2e-12, "float16": 1.1e-12, "int32": 3.1e-12, "float32": 3.7e-12}
        )
    )
    add_joules: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType(
            # int8 products are summed in int32.
            {"int8": 0.1e-12, "float16": 0.4e-12, "int32": 0.1e-12, "float32": 0.9e-12}
        )
    )
    dram_joules_per_byte: float = 160e-12  # 640 pJ for 32 bits
    sram_joules_per_byte: float = 12.5e-12  # 100 pJ for 64 bits of 1 MB
    source: str = (
        "45 nm, 0.9 V: Horowitz, Computing's energy problem, ISSCC 2014, fig. 1.1.9; "
        "DRAM as in Han et al. 2015 (arXiv 1506.02626), table 1"
    )

    def __post_init__(self) -> None:
        figures = {
            **{f"multiply_joules[{k!r}]": v for k, v in self.multiply_joules.items()},
            **{f"add_joules[{k!r}]": v for k, v in self.add_joules.items()},
            "dram_joules_per_byte": self.dram_joules_per_byte,
            "sram_joules_per_byte": self.sram_joules_per_byte,
        }
        for what, figure in figures.items():
            if not 0.0 < figure < math.inf:
                raise InputError(f"energy table: {what} must be a positive number, found {figure}")
        if odd := set(self.multiply_joules) ^ set(self.add_joules):
            raise InputError(
                f"energy table: {min(odd)!r} needs both multiply_joules and add_joules, has one"
            )


HOROWITZ_2014 = EnergyTable()


@checked(
    graph=GRAPH,
    table=a(EnergyTable, "an EnergyTable of regularizers.costs.energy"),
    dtype=NAME,
)
def energy(graph: ChannelGraph, table: EnergyTable = HOROWITZ_2014, dtype: str = "float32") -> Cost:
    """Joules of one call at the traced batch size.

    A multiply-add costs a multiplication and an addition, every weight one fetch from DRAM, every
    activation that a kernel reads or writes one access of a 1 MB SRAM.

    Args:
        graph: the channel graph of the network.
        table: energies of single operations.
        dtype: of all operands, a type of the table.

    Raises:
        ValueError: if the table has no such type; the message lists those it has.
    """
    if dtype not in table.multiply_joules:
        raise InputError(f"no energy for {dtype!r}{near(dtype, table.multiply_joules)}")
    each = (table.multiply_joules[dtype] + table.add_joules[dtype]) / 2.0  # a FLOP is half of it
    itemsize = jnp.dtype(dtype).itemsize
    sram, dram = table.sram_joules_per_byte * itemsize, table.dram_joules_per_byte * itemsize

    def price(work: Work, form: Form) -> Any:
        del form  # it has no steps
        return work.flops * each + (work.read + work.written) * sram + work.weights * dram

    return cost_of_work(graph, f"energy_{dtype}", "J", price)
