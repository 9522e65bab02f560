"""What a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morph.errors import ConfigError
from morph.settings import documented, setting
from morph.vocabulary import (
    AUGMENTATIONS,
    BASELINES,
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
        help=f"The cost that the budget limits: one of {', '.join(COSTS)} (here: the latency on "
        "this machine; the name of a device: a lower bound of the latency on it), or a weighted "
        "sum, e.g. 0.5*flops+0.5*edge_tpu.",
    )
    budget: float | str = setting(
        0.5,
        help="The most that the final network may cost: a ratio to the seed's cost (0.5, 50%), "
        "or an amount (120MFLOP, 2ms, 300KB).",
    )
    shrink_to: float | str | None = setting(
        None,
        help="The cost to shrink to before the network is widened back to --budget, given like "
        "the budget; none to shrink to the budget itself. MorphNet's cycles at the seed's cost: "
        "--budget=1.0 --shrink_to=0.5 --cycles=2.",
    )
    expand: str = setting(
        "warm",
        help="How a widened network starts if another cycle follows: warm, from the weights of "
        "the shrunk network, whose function is preserved; or from scratch.",
        choices=("warm", "scratch"),
    )
    final: str = setting(
        "finetune",
        help="How the last network is trained: finetune, from the weights of the shrunk network; "
        "or from scratch.",
        choices=("finetune", "scratch"),
    )
    patience: int = setting(
        0,
        help="Stop after this many cycles in a row without improvement of the first metric, and "
        "return the network of the best cycle; 0 to never stop early. It uses the test set.",
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
        help="The share of a shrink phase that is reserved for recovery at the budget. The default "
        "is 0.3; with --penalty=decay it is 0 if a retrain phase follows, else 0.5.",
        range="[0, 1)",
    )
    penalty: str = setting(
        DECAY,
        help="How channels are removed. decay: all channels decay, the weaker ones of each group "
        "faster, and at the end of the phase those that are worth least for their cost are cut at "
        f"once. {', '.join(PENALTIES)}: the strengths of channels are pulled to zero gradually; "
        "one of these, or one per pattern, of which the first that matches is used: "
        "Conv_*=gamma,*=group_lasso.",
    )
    strengths: str = setting(
        "",
        help="Multipliers of the penalty's strength per pattern: Dense_*=0.1; 0 for no penalty.",
    )
    gate_mode: str = setting(
        "annealed", help="How the gates of --penalty=gates are sampled.", choices=GATE_MODES
    )
    batch_size: int = setting(128, help="Examples per step, over all devices.", range="[1, inf)")
    learning_rate: float = setting(0.1, help="Peak learning rate.", range="[0, inf)")
    shrink_learning_rate: float = setting(
        0.05,
        help="Peak learning rate of schedules that start from trained weights: with --start, and "
        "with --schedule=phase in shrinking and fine-tuning.",
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
        "or a function (outputs, batch) or morph.Metric of your own. --patience uses the first.",
        each=METRICS,
        imported=True,
    )
    optimizer: str = setting(
        "momentum",
        help="The optimizer; its learning rate has linear warm-up and cosine decay.",
        choices=OPTIMIZERS,
    )
    schedule: str = setting(
        "run",
        help="run: the learning rate warms up and decays once, over all phases that continue from "
        "each other's weights; phase: in every phase.",
        choices=("run", "phase"),
    )
    warmup_steps: int | None = setting(
        None,
        help="Steps of warm-up of the learning rate. The default is a tenth of its steps, at most "
        "500.",
        range="[0, inf)",
    )
    clip_norm: float = setting(
        0.0, help="Gradients are clipped to this global norm; 0 for no clipping.", range="[0, inf)"
    )
    ema_decay: float = setting(
        0.0,
        help="Decay of an exponential moving average of the weights, which is then tested and "
        "saved in their place; 0 for none.",
        range="[0, 1)",
    )
    precision: str = setting(
        "float32",
        help="The dtype that networks compute in; weights stay in float32.",
        choices=PRECISIONS,
    )
    augment: str = setting(
        "",
        help=f"Augmentation of training images: some of {', '.join(AUGMENTATIONS)}, separated by "
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
        "baselines have no teacher.",
        range="[0, 1]",
    )
    distill_by: str = setting(
        "logits",
        help="How --distill compares outputs with the seed's: softened logits; squared differences "
        "of responses; or angles between embeddings.",
        choices=TAUGHT,
    )
    distill_temperature: float = setting(
        2.0, help="The temperature that softens the logits of --distill.", range="(0, inf)"
    )
    blocks: bool = setting(
        True,
        help="Residual blocks and towers may be removed as a whole (not with --penalty=gates).",
    )
    min_width: int = setting(1, help="The least width of any channel group.", range="[1, inf)")
    floors: str = setting(
        "", help="Least widths per pattern, in addition to --min_width: Conv_0=8,Block_*=4."
    )
    round_to: int = setting(
        1, help="Shrunk and expanded widths are multiples of this.", range="[1, inf)"
    )
    tensorize: str = setting(
        "",
        help=f"The tensor networks that replace kernels at the end: {', '.join(KINDS)}; or one per "
        "pattern, of which the first that matches is used: Dense_*=tt,*=tucker2; empty for none.",
    )
    tensorize_budget: float | str = setting(
        0.25, help="The most that the network may cost after --tensorize, given like --budget."
    )
    tensorize_steps: int = setting(
        200,
        help="Training steps after --tensorize, from the decomposed weights.",
        range="[0, inf)",
    )
    baselines: str = setting(
        "",
        help="Networks to train for comparison, for as many steps as the learned one: whole, the "
        "seed network; uniform, the seed network with one width multiplier, at the budget; or "
        "both, separated by a comma.",
        each=BASELINES,
    )
    # JAX keeps 32 bits of it: larger seeds would be the same as smaller ones.
    seed: int = setting(0, help="The random seed.", range="[0, 4294967296)")


def renewed(told: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that an older version wrote, by the names of today and in their sense."""
    found = dict(told)
    if "baseline" in found:  # which was both or none
        found["baselines"] = ",".join(BASELINES) if found.pop("baseline") else ""
    if "expand_budget" in found:  # what the last network costs; the budget was to shrink to
        last = found.pop("expand_budget")
        if last is not None and "budget" in found:
            found |= {"shrink_to": found["budget"], "budget": last}
    return found


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
