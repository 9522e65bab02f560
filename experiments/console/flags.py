"""The flags of a configuration: one for every field of `CycleConfig`, with its default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from morph.cycle.checks import (
    CHOICES,
    KINDS,
    LISTS,
    RANGES,
)
from morph.cycle.config import CycleConfig
from morph.training.augment import AUGMENTATIONS
from morph.training.losses import METRICS
from regularizers.named import COSTS
from regularizers.objective.penalties import PENALTIES

HELP: Mapping[str, str] = {
    "target": f"The cost that is paid for: one of {', '.join(COSTS)} (here: the latency on this "
    "machine; names of devices: theirs at most), or a weighted sum, e.g. 0.5*flops+0.5*edge_tpu.",
    "budget": "The cost to shrink to: a ratio to the seed's (0.5, 50%), or an amount (120MFLOP, "
    "2ms, 300KB).",
    "expand_budget": "The cost to widen the shrunk network to, as --budget; none to leave it as "
    "small as it is.",
    "expand": "How a widened network starts, if another cycle follows: from scratch, or warm, from "
    "the shrunk one's weights.",
    "final": "How the last network is trained: from scratch, or finetune: from the shrunk one's "
    "weights, with the function that it has.",
    "patience": "Stop after this many cycles in a row that did not improve the first metric, and "
    "give the best cycle's network; 0 for never.",
    "cycles": "How often to shrink and expand.",
    "seed_steps": "Training steps of the seed network.",
    "shrink_steps": "Training steps of each shrink phase.",
    "retrain_steps": "Training steps of each retrain phase.",
    "settle": "The share of a shrink phase that is left to recover at the budget.",
    "penalty": f"What makes a channel strong: {', '.join(PENALTIES)}; or one per pattern, of which "
    "the first that matches wins: Conv_*=gamma,*=group_lasso.",
    "strengths": "Multipliers of the strength per pattern: Dense_*=0.1; 0 leaves groups alone.",
    "gate_mode": "How the gates of --penalty=gates are sampled.",
    "batch_size": "Examples per step, over all devices.",
    "learning_rate": "Peak learning rate.",
    "shrink_learning_rate": "Peak learning rate of phases that start from trained weights: "
    "shrinking and fine-tuning.",
    "weight_decay": "L2 penalty on kernels; decoupled in adamw, lamb and lion.",
    "loss": "What is minimised.",
    "label_smoothing": "The share of a label that is spread over all classes.",
    "metrics": f"Measured on the test set, the larger the better: some of {', '.join(METRICS)}, "
    "separated by commas.",
    "optimizer": "With linear warm-up and cosine decay of the learning rate.",
    "schedule": "The learning rate warms up and decays in every phase; or once in a run, over all "
    "phases that go on from each other's weights.",
    "warmup_steps": "Warm-up of the learning rate; a tenth of its steps, at most 500, if not "
    "given.",
    "clip_norm": "The largest global norm of a gradient; 0 for any.",
    "ema_decay": "Of an exponential moving average of the weights, which is then what is tested "
    "and saved; 0 for none.",
    "precision": "What networks compute in; weights stay in float32.",
    "augment": f"Changes to training images: some of {', '.join(AUGMENTATIONS)}, separated by "
    "commas.",
    "mixup": "Alpha of mixup, which blends pairs of examples; 0 for none.",
    "distill": "The weight of the trained seed's logits in the loss of shrinking and retraining.",
    "distill_temperature": "That softens the logits of --distill.",
    "blocks": "Residual blocks and towers may go as a whole (not with --penalty=gates).",
    "min_width": "No group of channels gets narrower.",
    "floors": "Least widths per pattern, beside --min_width: Conv_0=8,Block_*=4.",
    "round_to": "Shrunk and expanded widths become multiples of it.",
    "tensorize": f"The tensor networks that kernels become at the end: {', '.join(KINDS)}; or one "
    "per pattern, of which the first that matches wins: Dense_*=tt,*=tucker2; empty for none.",
    "tensorize_budget": "The cost that --tensorize leaves, as --budget.",
    "tensorize_steps": "Training steps after --tensorize, from the decomposed weights.",
    "baseline": "Also train the seed with one uniform width multiplier at the final cost, as long.",
    "seed": "Seed of everything random.",
}


class Amount(flags.ArgumentParser):
    """A ratio, or what `parse_budget` reads."""

    def parse(self, argument: Any) -> float | str | None:
        """A number where it is one; None for `none`."""
        try:
            return float(argument)
        except ValueError:
            return None if argument.lower() == "none" else str(argument)

    def flag_type(self) -> str:
        """What the help calls it."""
        return "amount"


def _amount(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE(Amount(), name, default, text, flag_values)


def _bounded(define: Callable[..., Any]) -> Callable[..., None]:
    """A flag for a number that is at least what `RANGES` says."""

    def defined(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
        least = RANGES[name][0] if name in RANGES else None
        define(name, default, text, lower_bound=least, flag_values=flag_values)

    return defined


# By the annotation of a field.
_DEFINE: Mapping[str, Callable[..., Any]] = {
    "bool": flags.DEFINE_bool,
    "int": _bounded(flags.DEFINE_integer),
    "int | None": _bounded(flags.DEFINE_integer),
    "float": _bounded(flags.DEFINE_float),
    "float | str": _amount,
    "float | str | None": _amount,
    "str": flags.DEFINE_string,
}


def define_settings(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines a flag for every field of `CycleConfig`."""
    for field in dataclasses.fields(CycleConfig):
        name, text = field.name, HELP[field.name]
        if name in CHOICES and name not in LISTS:
            known, default = list(CHOICES[name]), str(field.default)
            flags.DEFINE_enum(name, default, known, text, flag_values=flag_values)
        else:
            _DEFINE[str(field.type)](name, field.default, text, flag_values=flag_values)


def config_of(flag_values: flags.FlagValues = flags.FLAGS) -> CycleConfig:
    """The configuration that flags ask for."""
    values: dict[str, Any] = {
        field.name: flag_values[field.name].value for field in dataclasses.fields(CycleConfig)
    }
    return CycleConfig(**values)
