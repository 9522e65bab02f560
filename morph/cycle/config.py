"""What a run is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from morph.errors import ConfigError
from morph.settings import documented, setting
from morph.vocabulary import (
    AUGMENTATIONS,
    DECAY,
    GATE_MODES,
    KINDS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    PRECISIONS,
    TAUGHT,
)
from regularizers.errors import InputError
from regularizers.vocabulary import COSTS, PENALTIES, check_name


@documented
@dataclass(frozen=True, kw_only=True)
class CycleConfig:
    """How to learn a structure.

    Costs are ratios to the seed's, or amounts: `"120MFLOP"`, `"2ms"`.
    """

    target: str = setting(
        "flops",
        help=f"The cost that is paid for: one of {', '.join(COSTS)} (here: the latency on this "
        "machine; names of devices: theirs at most), or a weighted sum, e.g. "
        "0.5*flops+0.5*edge_tpu.",
    )
    budget: float | str = setting(
        0.5,
        help="What the network costs that a run ends with: a ratio to the seed's (0.5, 50%), or "
        "an amount (120MFLOP, 2ms, 300KB).",
    )
    shrink_to: float | str | None = setting(
        None,
        help="The cost to shrink to before the network is widened back to --budget, as that; none "
        "to shrink to the budget itself. MorphNet's cycles at the seed's cost: --budget=1.0 "
        "--shrink_to=0.5 --cycles=2.",
    )
    expand: str = setting(
        "warm",
        help="How a widened network starts, if another cycle follows: warm, from the shrunk one's "
        "weights, whose function widening preserves, or from scratch.",
        choices=("warm", "scratch"),
    )
    final: str = setting(
        "finetune",
        help="How the last network is trained: finetune, from the shrunk one's weights, with the "
        "function that it has; or from scratch.",
        choices=("finetune", "scratch"),
    )
    patience: int = setting(
        0,
        help="Stop after this many cycles in a row that did not improve the first metric, and "
        "give the best cycle's network; 0 for never. It looks at the test set.",
        range="[0, inf)",
    )
    cycles: int = setting(1, help="How often to shrink and expand.", range="[1, inf)")
    seed_steps: int = setting(200, help="Training steps of the seed network.", range="[0, inf)")
    shrink_steps: int = setting(300, help="Training steps of each shrink phase.", range="[0, inf)")
    retrain_steps: int = setting(
        500, help="Training steps of each retrain phase.", range="[0, inf)"
    )
    settle: float | None = setting(
        None,
        help="The share of a shrink phase that is left to recover at the budget; if not given 0.3, "
        "and with --penalty=decay none in a run, where a retrain phase follows, else 0.5.",
        range="[0, 1)",
    )
    penalty: str = setting(
        DECAY,
        help="How channels are brought to go. decay: the network stays whole while channels decay, "
        "the faster the weaker they are in their group, and what is least worth its cost is cut at "
        f"once. Or what is pulled to zero on the way: {', '.join(PENALTIES)}; or one of these per "
        "pattern, of which the first that matches wins: Conv_*=gamma,*=group_lasso.",
    )
    strengths: str = setting(
        "",
        help="Multipliers of the strength per pattern: Dense_*=0.1; 0 leaves groups alone.",
    )
    gate_mode: str = setting(
        "annealed", help="How the gates of --penalty=gates are sampled.", choices=GATE_MODES
    )
    batch_size: int = setting(128, help="Examples per step, over all devices.", range="[1, inf)")
    learning_rate: float = setting(0.1, help="Peak learning rate.", range="[0, inf)")
    shrink_learning_rate: float = setting(
        0.05,
        help="Peak learning rate of schedules that start from trained weights: those that --start "
        "gives; with --schedule=phase also in shrinking and fine-tuning.",
        range="[0, inf)",
    )
    weight_decay: float = setting(
        1e-4,
        help="L2 penalty on kernels; decoupled in adamw, lamb and lion.",
        range="[0, inf)",
    )
    loss: str = setting(
        "cross_entropy",
        help="What is minimised: a name, or a function (outputs, batch) or morph.Task of your own.",
        choices=LOSSES,
        imported=True,
    )
    label_smoothing: float = setting(
        0.0, help="The share of a label that is spread over all classes.", range="[0, 1)"
    )
    metrics: str = setting(
        "accuracy",
        help=f"Measured on the test set: some of {', '.join(METRICS)}, separated by commas, "
        "or a function (outputs, batch) or morph.Metric of your own. --patience goes by the first.",
        each=METRICS,
        imported=True,
    )
    optimizer: str = setting(
        "momentum",
        help="With linear warm-up and cosine decay of the learning rate.",
        choices=OPTIMIZERS,
    )
    schedule: str = setting(
        "run",
        help="The learning rate warms up and decays once in a run, over all phases that go on "
        "from each other's weights; or in every phase.",
        choices=("run", "phase"),
    )
    warmup_steps: int | None = setting(
        None,
        help="Warm-up of the learning rate; a tenth of its steps, at most 500, if not given.",
        range="[0, inf)",
    )
    clip_norm: float = setting(
        0.0, help="The largest global norm of a gradient; 0 for any.", range="[0, inf)"
    )
    ema_decay: float = setting(
        0.0,
        help="Of an exponential moving average of the weights, which is then what is tested and "
        "saved; 0 for none.",
        range="[0, 1)",
    )
    precision: str = setting(
        "float32",
        help="What networks compute in; weights stay in float32.",
        choices=PRECISIONS,
    )
    augment: str = setting(
        "",
        help=f"Changes to training images: some of {', '.join(AUGMENTATIONS)}, separated by "
        "commas.",
        each=AUGMENTATIONS,
    )
    mixup: float = setting(
        0.0,
        help="Alpha of mixup, which blends pairs of examples; 0 for none.",
        range="[0, inf)",
    )
    distill: float = setting(
        0.0,
        help="The weight of the trained seed's outputs in the loss of shrinking and retraining; "
        "the baseline has no teacher.",
        range="[0, 1]",
    )
    distill_by: str = setting(
        "logits",
        help="What of the seed's outputs --distill learns from: logits, softened; responses, by "
        "their squares; or embeddings, by their angles.",
        choices=TAUGHT,
    )
    distill_temperature: float = setting(
        2.0, help="That softens the logits of --distill.", range="(0, inf)"
    )
    blocks: bool = setting(
        True, help="Residual blocks and towers may go as a whole (not with --penalty=gates)."
    )
    min_width: int = setting(1, help="No group of channels gets narrower.", range="[1, inf)")
    floors: str = setting(
        "", help="Least widths per pattern, beside --min_width: Conv_0=8,Block_*=4."
    )
    round_to: int = setting(
        1, help="Shrunk and expanded widths become multiples of it.", range="[1, inf)"
    )
    tensorize: str = setting(
        "",
        help=f"The tensor networks that kernels become at the end: {', '.join(KINDS)}; or one per "
        "pattern, of which the first that matches wins: Dense_*=tt,*=tucker2; empty for none.",
    )
    tensorize_budget: float | str = setting(
        0.25, help="The cost that --tensorize leaves, as --budget."
    )
    tensorize_steps: int = setting(
        200,
        help="Training steps after --tensorize, from the decomposed weights.",
        range="[0, inf)",
    )
    baseline: bool = setting(
        False,
        help="Also train the seed network whole, and with one uniform width multiplier at the "
        "final cost, for as many steps as the learned network.",
    )
    # JAX keeps 32 bits of it: larger seeds would be the same as smaller ones.
    seed: int = setting(0, help="Seed of everything random.", range="[0, 4294967296)")


@documented
@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the arrays of a run lie. It is no part of what a run is: it may resume on another."""

    mesh: str = setting(
        "",
        help="The axes that all devices are arranged along: data=4,fsdp=2. Batches are divided "
        "over data and fsdp, variables over fsdp and tensor; all devices are data if not given.",
    )
    shard: str = setting(
        "",
        help="What is divided over which axes of --mesh, per pattern, of which the first that "
        "matches wins: for each of the last axes of an array its axes of the mesh, - for none: "
        "*/query/kernel=fsdp:tensor,head=-. Else as nn.with_partitioning says; else over fsdp.",
    )


def check_target(target: str) -> None:
    """Raises unless there is a cost of that name, before any is counted or timed.

    Raises:
        ConfigError: the message lists near matches.
    """
    try:
        check_name(target)
    except InputError as error:
        raise ConfigError(f"target: {error}") from error
