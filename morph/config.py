"""What a run is asked for, and whether it can be had."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import optax

from morph.amounts import floors_of, parse_budget
from morph.augment import AUGMENTATIONS
from morph.budget import check_feasible
from morph.expand import BudgetError
from morph.gates import MODES
from morph.losses import LOSSES, METRICS
from morph.optimizers import OPTIMIZERS, make_optimizer
from morph.tensorize.formats import FORMATS
from morph.tensorize.plan import AUTO, DENSE
from morph.train import PRECISIONS
from regularizers.channels.graph import ChannelGraph, near
from regularizers.costs.cost import Cost
from regularizers.costs.named import cost_named
from regularizers.objective import FRESH, NetworkRegularizer
from regularizers.patterns import matched, parse


@dataclass(frozen=True, kw_only=True)
class CycleConfig:
    """How to learn a structure. Costs are ratios to the seed's, or amounts: `"120MFLOP"`, `"2ms"`.

    Attributes:
        target: what is paid for: a cost by name, or a weighted sum; see `costs.named`.
        budget: the cost to shrink to.
        expand_budget: the cost to expand to after shrinking; None to stay as small as that.
        expand: how an expanded network starts: from `scratch`, or `warm`, from the weights of the
            shrunk one, whose function widening preserves.
        final: how the last network is trained: from `scratch`, or by `finetune`, from the weights
            that it has.
        patience: stop after this many cycles in a row that did not improve the first metric; the
            best cycle's network is then the result. 0 for never. It looks at the test set.
        cycles: how often to shrink and expand.
        seed_steps, shrink_steps, retrain_steps: training steps of each phase.
        settle: the share of the shrink phase that is left to recover at the budget.
        penalty: what makes a channel strong: `gamma`, `group_lasso` or `gates`; or one per pattern,
            `"Conv_*=gamma,*=group_lasso"`, of which the first that matches a group wins.
        strengths: multipliers of the strength per pattern: `"Dense_*=0.1"`; 0 leaves a group alone.
        gate_mode: one of `gates.MODES`.
        loss: one of `losses.LOSSES`; `label_smoothing` of cross-entropy.
        metrics: names of `losses.METRICS`, separated by commas.
        optimizer: one of `optimizers.OPTIMIZERS`.
        batch_size, learning_rate, weight_decay: of all phases.
        schedule: the learning rate warms up and decays in every `phase`; or once in a `run`, over
            all phases that go on from each other's weights, at `learning_rate`.
        warmup_steps: of the learning rate; a tenth of its steps, at most 500, if None.
        clip_norm: the largest global norm of a gradient; 0 for any.
        ema_decay: of an exponential moving average of the weights, which is what is evaluated and
            kept; 0 for none.
        precision: what networks compute in, `float32` or `bfloat16`; weights stay in float32.
        augment: names of `augment.AUGMENTATIONS`, separated by commas.
        mixup: alpha of mixup; 0 for none.
        distill: the weight of the trained seed's logits in the loss of shrinking and retraining, 0
            to 1; the baseline has no teacher.
        distill_temperature: that softens them.
        shrink_learning_rate: the peak in phases that start from trained weights: shrinking and
            fine-tuning; where they have a schedule of their own.
        blocks: residual blocks and towers may go as a whole (not with gates).
        min_width: no group gets narrower.
        floors: least widths per pattern, `"Conv_0=8,Block_*=4"`, beside `min_width`.
        round_to: shrunk and expanded widths become multiples of it.
        tensorize: the format of the tensor networks that kernels become at the end, `auto`, `svd`,
            `tucker2`, `tucker`, `cp` or `tt`, or one per pattern, `"Dense_*=tt,*=tucker2"`; empty
            for none. See `morph.tensorize_plan`.
        tensorize_budget: the cost that this leaves.
        tensorize_steps: training steps of the factorized network, from the decomposed weights.
        baseline: also train the seed with one uniform width multiplier at the final cost.
        seed: of everything random.
    """

    target: str = "flops"
    budget: float | str = 0.5
    expand_budget: float | str | None = 1.0
    expand: str = "scratch"
    final: str = "scratch"
    patience: int = 0
    cycles: int = 1
    seed_steps: int = 200
    shrink_steps: int = 400
    retrain_steps: int = 300
    settle: float = 0.3
    penalty: str = "gamma"
    strengths: str = ""
    gate_mode: str = "annealed"
    batch_size: int = 128
    learning_rate: float = 0.1
    shrink_learning_rate: float = 0.05
    weight_decay: float = 1e-4
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    metrics: str = "accuracy"
    optimizer: str = "momentum"
    schedule: str = "phase"
    warmup_steps: int | None = None
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    precision: str = "float32"
    augment: str = ""
    mixup: float = 0.0
    distill: float = 0.0
    distill_temperature: float = 2.0
    blocks: bool = True
    min_width: int = 1
    floors: str = ""
    round_to: int = 1
    tensorize: str = ""
    tensorize_budget: float | str = 0.25
    tensorize_steps: int = 200
    baseline: bool = False
    seed: int = 0


class ConfigError(ValueError):
    """Settings that make no sense, or that this network cannot follow."""


def target_cost(config: CycleConfig, graph: ChannelGraph) -> Cost:
    """What a run of `config` pays for.

    Raises:
        ConfigError: if there is no cost of that name; the message lists near matches.
    """
    try:
        return cost_named(graph, config.target)
    except ValueError as error:
        raise ConfigError(f"target: {error}") from error


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


def configured_optimizer(rate: optax.Schedule, config: CycleConfig) -> optax.GradientTransformation:
    """The optimizer that a configuration names.

    Args:
        rate: the learning rate at every step of a phase.
        config: names it.
    """
    return make_optimizer(
        config.optimizer, rate, weight_decay=config.weight_decay, clip_norm=config.clip_norm
    )


def check_training(config: CycleConfig) -> None:
    """Raises if a setting of the training is unknown or makes no sense.

    Raises:
        ConfigError: naming the setting, what it is, and what it may be.
    """
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
    except ValueError as error:
        raise ConfigError(str(error)) from error
    check_feasible(regularizer, budget, floors, config.round_to)


def tensor_kinds(config: CycleConfig) -> dict[str, str]:
    """The format for each pattern of kernels."""
    named = config.tensorize if "=" in config.tensorize else f"*={config.tensorize}"
    return parse(named, "tensorize", str)


def make_regularizer(
    config: CycleConfig, graph: ChannelGraph, cost: Cost, *, strict: bool = False
) -> NetworkRegularizer:
    """What pulls on the channels of a network.

    Args:
        config: names the penalties and their strengths.
        graph: of the seed network, or of one that is left of it.
        cost: of that graph.
        strict: refuse patterns that match nothing; of a seed they all must match something.

    Raises:
        ValueError: if the penalties do not fit the graph.
    """
    penalty: str | dict[str, str] = config.penalty
    if "=" in config.penalty:
        penalty = parse(config.penalty, "penalty", str)
    strengths = parse(config.strengths, "strengths", float)
    if not strict:
        penalty = penalty if isinstance(penalty, str) else matched(graph, penalty)
        strengths = matched(graph, strengths)
    has_gates = "gates" in (penalty if isinstance(penalty, str) else penalty.values())
    return NetworkRegularizer(
        graph,
        cost,
        penalty,
        threshold=0.0,
        relative_to=FRESH,
        strengths=strengths,
        blocks=config.blocks and not has_gates,
    )


def make_floors(
    config: CycleConfig, graph: ChannelGraph, *, strict: bool = False
) -> dict[str, int]:
    """The least width of every group; see `make_regularizer`.

    Raises:
        ValueError: if a floor is none, or, where `strict`, a pattern matches nothing.
    """
    floors = parse(config.floors, "floors", int)
    return floors_of(graph, config.min_width, floors if strict else matched(graph, floors))
