"""Whether a configuration makes sense for a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real

from morph.budget.amounts import parse_budget
from morph.budget.controller import check_feasible
from morph.cycle.config import CycleConfig
from morph.cycle.shrinking import make_floors, make_regularizer
from morph.errors import BudgetError, ConfigError
from morph.kernels.formats import FORMATS
from morph.tensorize.plan import AUTO, DENSE
from morph.training.augment import AUGMENTATIONS
from morph.training.gated import MODES
from morph.training.losses import LOSSES, METRICS
from morph.training.optimizers import OPTIMIZERS
from morph.training.step import PRECISIONS
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.messages import near
from regularizers.patterns import parse

STARTS = ("scratch", "warm")  # of an expanded network


FINALS = ("scratch", "finetune")


SCHEDULES = ("phase", "run")  # what the learning rate decays over


# What a setting may be.
CHOICES: Mapping[str, Collection[str]] = {
    "loss": LOSSES,
    "metrics": METRICS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "expand": STARTS,
    "gate_mode": MODES,
    "final": FINALS,
}


KINDS = (*FORMATS, AUTO, DENSE)  # of kernels


LISTS = ("metrics", "augment")  # of choices, separated by commas


# The least and the largest that a setting may be, and whether it may be the largest.
RANGES: Mapping[str, tuple[float, float, bool]] = {
    "batch_size": (1, math.inf, False),
    "label_smoothing": (0.0, 1.0, False),
    "clip_norm": (0.0, math.inf, False),
    "ema_decay": (0.0, 1.0, False),
    "mixup": (0.0, math.inf, False),
    "distill": (0.0, 1.0, True),
    "patience": (0, math.inf, False),
    "warmup_steps": (0, math.inf, False),
    "weight_decay": (0.0, math.inf, False),
    "learning_rate": (0.0, math.inf, False),
    "shrink_learning_rate": (0.0, math.inf, False),
    "settle": (0.0, 1.0, False),
    "min_width": (1, math.inf, False),
    "seed": (0, math.inf, False),
}


def names_of(setting: str) -> list[str]:
    """The names in a setting that holds several."""
    return [name.strip() for name in setting.split(",") if name.strip()]


# By the words of a field's annotation.
_TYPES: Mapping[str, type] = {
    "bool": bool,
    "int": Integral,
    "float": Real,
    "str": str,
    "None": type(None),
}


def check_types(config: CycleConfig) -> None:
    """Raises if a setting is of another type than its field, or is not a number.

    Raises:
        ConfigError: naming the setting, its type and what was found.
    """
    for field in dataclasses.fields(config):
        value, words = getattr(config, field.name), str(field.type).split(" | ")
        fits = isinstance(value, tuple(_TYPES[word] for word in words))
        if not fits or (isinstance(value, bool) and "bool" not in words) or value != value:
            raise ConfigError(f"{field.name} must be {' or '.join(words)}, found {value!r}")


def check_training(config: CycleConfig) -> None:
    """Raises if a setting of the training is unknown or makes no sense.

    Raises:
        ConfigError: naming the setting, what it is, and what it may be.
    """
    check_types(config)
    for setting, known in CHOICES.items():
        value = getattr(config, setting)
        for name in names_of(value) if setting in LISTS else [value]:
            if name not in known:
                raise ConfigError(f"{setting}: there is no {name!r}{near(name, known)}")
    if not names_of(config.metrics):
        raise ConfigError(f"metrics: at least one of {', '.join(METRICS)}, found none")
    for setting, (least, most, inclusive) in RANGES.items():
        value = getattr(config, setting)
        if value is not None and not (least <= value < most or (inclusive and value == most)):
            end = "]" if inclusive else ")"
            raise ConfigError(f"{setting} must be in [{least:g}, {most:g}{end}, found {value}")
    if not config.distill_temperature > 0.0:
        raise ConfigError(
            f"distill_temperature must be above 0, found {config.distill_temperature}"
        )
    if config.label_smoothing and config.loss != "cross_entropy":
        raise ConfigError(
            f"label_smoothing is {config.label_smoothing}, but only the loss cross_entropy has "
            f"labels to smooth; found {config.loss}"
        )
    warm = config.expand == "warm" or config.expand_budget is None
    if config.final == "finetune" and not warm:
        raise ConfigError(
            "final is 'finetune', but an expanded network has fresh weights; choose expand='warm', "
            "or no expansion (expand_budget=None, --expand_budget=none)"
        )
    if config.tensorize:
        if config.patience:
            raise ConfigError(
                f"tensorize is {config.tensorize!r} and patience {config.patience}: which cycle is "
                "the best is known only after the last; tensorize its network by "
                "morph.tensorize_plan, or set patience=0"
            )
        for kind in tensor_kinds(config).values():
            if kind not in KINDS:
                raise ConfigError(f"tensorize: there is no {kind!r}{near(kind, KINDS)}")
    if config.expand_budget is None and config.cycles > 1:
        raise ConfigError(
            f"cycles is {config.cycles}, but without expansion (expand_budget is None) the first "
            "already ends at the budget"
        )


def check_config(config: CycleConfig, cost: Cost, graph: ChannelGraph) -> None:
    """Raises if a run of `config` makes no sense or cannot meet its budget.

    Raises:
        ConfigError: naming the setting. BudgetError: if a budget is out of reach.
    """
    steps = {"seed_steps": config.seed_steps, "retrain_steps": config.retrain_steps}
    if config.tensorize:
        steps["tensorize_steps"] = config.tensorize_steps
    for name, value in {**steps, "shrink_steps": config.shrink_steps}.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, found {value}")
    budget = parse_budget(config.budget, cost)
    if budget > cost.seed:
        raise BudgetError(
            f"budget is what the seed is shrunk to, at most its own cost of "
            f"{cost.show(cost.seed)}; found {config.budget}, which is {cost.show(budget)}"
        )
    if config.expand_budget is not None and parse_budget(config.expand_budget, cost) < budget:
        raise BudgetError(
            f"expand_budget ({config.expand_budget}) must be at least the budget "
            f"({config.budget}): it is what the shrunk network is widened to"
        )
    if config.tensorize and parse_budget(config.tensorize_budget, cost) >= cost.seed:
        raise BudgetError(
            f"tensorize_budget ({config.tensorize_budget}) must be below the seed's cost of "
            f"{cost.show(cost.seed)}"
        )
    if config.cycles < 1:
        raise ConfigError(f"cycles must be at least 1, found {config.cycles}")
    if config.round_to < 1:
        raise ConfigError(f"round_to must be at least 1, found {config.round_to}")
    try:
        regularizer = make_regularizer(config, graph, cost, strict=True)
        floors = make_floors(config, graph, strict=True)
    except InputError as error:
        raise ConfigError(str(error)) from error
    check_feasible(regularizer, budget, floors, config.round_to)


def tensor_kinds(config: CycleConfig) -> dict[str, str]:
    """The format for each pattern of kernels."""
    named = config.tensorize if "=" in config.tensorize else f"*={config.tensorize}"
    return parse(named, "tensorize", str)
