"""Settings of a whole run that the other roads have no use for, and why: those refuse them."""

from __future__ import annotations

from collections.abc import Mapping

from morph.cycle.config import CycleConfig
from morph.errors import ConfigError

_NO_CYCLES = "a network is shrunk once, and not widened again"
_NO_TEACHER = "no trained seed is at hand to teach; give 0 to train without"
_NOT_TENSORIZED = "kernels stay as they are; morph.tensorize_plan takes a trained network"
_NO_GATES = "channels are held at zero, and have no gates"
_NOT_SHRUNK = "the architecture says what the network is; it is not shrunk any more"
_NO_BASELINE = "only a whole run trains baselines besides"

UNUSED_BY_SWEEP: Mapping[str, str] = {
    "budget": "every run of a sweep has its own; name them all",
    "shrink_to": _NO_CYCLES,
    "expand": _NO_CYCLES,
    "final": "learned widths are trained from scratch",
    "patience": _NO_CYCLES,
    "cycles": _NO_CYCLES,
    "gate_mode": _NO_GATES,
    "distill": _NO_TEACHER,
    "distill_by": _NO_TEACHER,
    "distill_temperature": _NO_TEACHER,
    "tensorize": _NOT_TENSORIZED,
    "tensorize_budget": _NOT_TENSORIZED,
    "tensorize_steps": _NOT_TENSORIZED,
    "baselines": "uniform width multipliers are trained at every budget anyway",
}

# Beside those; but a budget is one for all targets.
UNUSED_BY_TARGETS: Mapping[str, str] = {
    **{name: why for name, why in UNUSED_BY_SWEEP.items() if name != "budget"},
    "target": "a network is learned for each of the targets; name them all",
    "retrain_steps": "networks are not trained again from scratch",
    "final": "networks are not trained again from scratch",
    "baselines": _NO_BASELINE,
}

UNUSED_BY_RETRAIN: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "budget", "shrink_to", "expand", "final", "patience", "cycles", "seed_steps",
            "shrink_steps", "settle", "penalty", "strengths", "gate_mode", "blocks", "min_width",
            "floors", "round_to",
        ),
        _NOT_SHRUNK,
    ),
    "shrink_learning_rate": "the one phase of it has learning_rate",
    "schedule": "there is one phase",
    "distill": _NO_TEACHER,
    "distill_by": _NO_TEACHER,
    "distill_temperature": _NO_TEACHER,
    "tensorize": _NOT_TENSORIZED,
    "tensorize_budget": _NOT_TENSORIZED,
    "tensorize_steps": _NOT_TENSORIZED,
    "baselines": _NO_BASELINE,
}  # fmt: skip


def check_unused(config: CycleConfig, unused: Mapping[str, str]) -> None:
    """Raises if a setting that has no use is not as it is by default.

    Raises:
        ConfigError: naming the setting, what it is, and why it has no use.
    """
    default = CycleConfig()
    for name, why in unused.items():
        if getattr(config, name) != getattr(default, name):
            raise ConfigError(f"{name} is {getattr(config, name)!r}, but has no effect here: {why}")
