"""What a configuration makes: the task, the step, the state, the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from morph.budget.traces import Traces
from morph.cycle.arguments import check_network, check_optimizer, check_task
from morph.cycle.asked import configured_optimizer
from morph.cycle.checks import check_training
from morph.cycle.config import CycleConfig
from morph.cycle.schedule import rate_of
from morph.errors import DataError
from morph.network import Network, Variables
from morph.settings import names_of
from morph.training.augment import augmented
from morph.training.checks import (
    check_data,
    check_labels,
    check_loss,
    check_metrics,
    outputs_of,
)
from morph.training.data import Batch, Pipeline
from morph.training.layout import Layout
from morph.training.losses import SMOOTHED, TAUGHT, Teacher, loss_named, soft_labels
from morph.training.metrics import METRICS, Metric, metric_of
from morph.training.step import (
    Objective,
    Step,
    TrainState,
    loops_well,
    make_objective,
    make_step,
)
from morph.training.task import (
    Loss,
    Task,
    classes_of,
    imported_task,
    inputs_augmented,
    labels_loss,
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How networks are trained and measured: as a configuration says, but for what is given.

    Attributes:
        config: names everything.
        task: in place of what is named.
        optimizer: `(learning rate by the step of a phase, config) -> optax transformation`.
    """

    config: CycleConfig
    task: Task = field(default_factory=Task)
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )

    def check(
        self, network: Network, train: Batch | Pipeline, test: Batch | Iterable[Batch]
    ) -> None:
        """Raises if the settings or the data make no sense, or do not fit each other.

        Raises:
            ConfigError: naming the setting. DataError: naming the set.
        """
        c = self.config
        check_training(c)
        check_network(network)
        check_task(self.task)
        check_optimizer(self.optimizer)
        seen = check_data(train, test, c.batch_size)
        here = seen[0].rows(slice(0, c.batch_size))
        _check_inputs(c, here)
        predicted, outputs = outputs_of(network, here)
        self._check_labels(outputs, seen)
        if self.loss is not None:
            name = c.loss if self.task.loss is None else "that was given"
            check_loss(name, self.loss, outputs, here)
        if c.distill:
            if self.whole.distill is None and c.distill_by != "responses":
                _check_one_array(f"distill_by is {c.distill_by!r}, which", outputs, "distill")
            taught = self.whole.distill or TAUGHT[c.distill_by]
            name = f"of distillation by {c.distill_by}"
            check_loss(name, lambda own, batch: taught(own, own), outputs, here)
        check_metrics(self.metrics, predicted, here)

    def _check_labels(self, outputs: Any, seen: tuple[Batch, Batch]) -> None:
        """Of a loss that is named it is known what labels it takes."""
        name = self.config.loss
        if self.whole.loss is not None or self.loss is None:
            return
        for what, batch in zip(("training", "test"), seen, strict=True):
            if batch.y is None:
                raise DataError(
                    f"the loss {name} compares outputs with labels, but the {what} set has none: "
                    "y is None. Give labels, a loss that needs none (Task(loss=...), --loss), or "
                    "weights to learn from (--start, --distill=1)"
                )
            for tree in (outputs, batch.y):
                _check_one_array(f"the loss {name}", tree, "loss")
            if name == "cross_entropy":
                check_labels(what, batch.y, outputs.shape[1:], classes=True)
            elif name != "masked_cross_entropy":
                check_labels(what, batch.y, outputs.shape[1:], classes=False)

    @cached_property
    def whole(self) -> Task:
        """The task with what settings name by the path of somebody's own function."""
        return imported_task(self.config.loss, self.config.metrics, self.task)

    @cached_property
    def loss(self) -> Loss | None:
        """What is minimised; None if all is learned from the teacher."""
        c = self.config
        if self.whole.loss is not None:
            return self.whole.loss
        if c.distill == 1.0 and not c.seed_steps and not c.baselines:
            return None  # every phase has a teacher
        return labels_loss(loss_named(c.loss, c.label_smoothing))

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """What is measured of every network; patience goes by the first."""
        if self.whole.metrics is None:
            return {name: METRICS[name] for name in names_of(self.config.metrics)}
        return {name: metric_of(metric) for name, metric in self.whole.metrics.items()}

    @property
    def decide(self) -> Callable[[Any], Any] | None:
        """What outputs say: the largest logit's class, where the loss takes classes."""
        if self.whole.decide is not None or self.whole.loss is not None or self.loss is None:
            return self.whole.decide
        return classes_of if self.config.loss in SMOOTHED else None

    @property
    def augment(self) -> Callable[[Any, Batch], Batch] | None:
        """Changes to training batches."""
        if self.whole.augment is not None:
            return self.whole.augment
        names = names_of(self.config.augment)
        return inputs_augmented(augmented(names)) if names else None

    def teacher(self, traces: Traces) -> Teacher | None:
        """Who teaches, if somebody does: the trained seed."""
        c = self.config
        if not c.distill:
            return None
        loss = self.whole.distill or TAUGHT[c.distill_by]
        if loss is soft_labels:
            loss = partial(soft_labels, temperature=c.distill_temperature)
        return Teacher(predict=traces.network.predict, weight=c.distill, loss=loss)

    def step(self, traces: Traces, layout: Layout | None = None) -> Step:
        """The compiled step of the seed network and of all that become of it."""
        looped, decay = loops_well(traces.graph), self.config.ema_decay
        laid = {} if layout is None else {"laid": layout.constrained}
        return make_step(self.objective(traces), looped=looped, ema_decay=decay, **laid)

    def objective(self, traces: Traces) -> Objective:
        """What a step minimises, of the seed network and of all that become of it."""
        return make_objective(
            self.loss,
            augment=self.augment,
            mixup_alpha=self.config.mixup,
            precision=self.config.precision,
            teacher=self.teacher(traces),
        )

    def transformation(self, number: int) -> optax.GradientTransformation:
        """The optimizer of a stretch, by its number."""
        return self.optimizer(rate_of(self.config, number), self.config)

    def state(
        self,
        network: Network,
        variables: Variables,
        tx: optax.GradientTransformation,
        teacher: Variables | None = None,
    ) -> TrainState:
        """The state that a network's training starts from."""
        averages = self.config.ema_decay > 0.0
        return TrainState.of(network, variables, tx, averages=averages, teacher=teacher)


def _check_one_array(what: str, tree: Any, argument: str) -> None:
    """Raises if there are several arrays where a function by name takes one."""
    if not jax.tree_util.all_leaves([tree]):
        raise DataError(
            f"{what} takes one array of outputs and one of labels, found "
            f"{jax.tree.map(np.shape, tree)}; give a function of your own: Task({argument}=...)"
        )


def _check_inputs(config: CycleConfig, batch: Batch) -> None:
    """Raises if inputs cannot be changed as settings say."""
    leaves = jax.tree.leaves(batch.x)
    if names_of(config.augment) and (len(leaves) > 1 or np.ndim(leaves[0]) != 4):
        shapes = " and ".join(str(np.shape(leaf)[1:]) for leaf in leaves)
        raise DataError(
            f"augment is {config.augment!r}, which needs images [n, height, width, "
            f"channels]; inputs have shape {shapes}"
        )
    for leaf in leaves if config.mixup else ():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise DataError(
                f"mixup is {config.mixup}, which blends inputs; {leaf.dtype} cannot be blended: "
                "set mixup=0"
            )
