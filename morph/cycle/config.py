"""What a run is asked for, and whether it can be had."""

from __future__ import annotations

from dataclasses import dataclass

import optax

from morph.errors import ConfigError
from morph.training.optimizers import make_optimizer
from regularizers.channels.graph import ChannelGraph
from regularizers.costs.cost import Cost
from regularizers.errors import InputError
from regularizers.named import cost_named


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


def target_cost(config: CycleConfig, graph: ChannelGraph) -> Cost:
    """What a run of `config` pays for.

    Raises:
        ConfigError: if there is no cost of that name; the message lists near matches.
    """
    try:
        return cost_named(graph, config.target)
    except InputError as error:
        raise ConfigError(f"target: {error}") from error


def configured_optimizer(rate: optax.Schedule, config: CycleConfig) -> optax.GradientTransformation:
    """The optimizer that a configuration names.

    Args:
        rate: the learning rate at every step of a phase.
        config: names it.
    """
    return make_optimizer(
        config.optimizer, rate, weight_decay=config.weight_decay, clip_norm=config.clip_norm
    )
