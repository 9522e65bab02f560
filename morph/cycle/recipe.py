"""What a configuration makes: the loss, the step, the state, the optimizer, what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np
import optax

from morph.budget.traces import Traces
from morph.cycle.arguments import check_functions, check_metrics, check_network
from morph.cycle.checks import check_training
from morph.cycle.config import CycleConfig, configured_optimizer
from morph.cycle.schedule import rate_of
from morph.errors import DataError
from morph.network import Network, Variables
from morph.settings import names_of
from morph.training.augment import Augmentation, augmented
from morph.training.checks import check_data, check_labels
from morph.training.data import Batch, Pipeline
from morph.training.losses import METRICS, OF_CLASSES, Loss, Metric, Teacher, loss_named
from morph.training.step import Step, TrainState, loops_well, make_step


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How networks are trained and measured: as a configuration says, but for what is given.

    Attributes:
        config: names everything.
        loss: `(logits, y) -> scalar`, in place of the one that is named.
        metrics: `{name: (logits, y) -> scalar}`, likewise; the larger the better.
        optimizer: `(learning rate by the step of a phase, config) -> optax transformation`.
        augment: `(key, x) -> x`, in place of those that are named.
    """

    config: CycleConfig
    loss: Loss | None = None
    metrics: Mapping[str, Metric] | None = None
    optimizer: Callable[[optax.Schedule, CycleConfig], optax.GradientTransformation] = (
        configured_optimizer
    )
    augment: Augmentation | None = None

    def check(self, network: Network, train: Batch | Pipeline, test: Batch) -> None:
        """Raises if the settings or the data make no sense.

        Raises:
            ConfigError: naming the setting. DataError: naming the set.
        """
        c = self.config
        check_training(c)
        check_network(network)
        check_functions(loss=self.loss, optimizer=self.optimizer, augment=self.augment)
        check_metrics(self.metrics)
        check_data(train, test, c.batch_size)
        x = jax.ShapeDtypeStruct((1, *np.shape(test.x)[1:]), test.x.dtype)
        variables = jax.eval_shape(network.init, jax.random.key(0), x)
        outputs = jax.eval_shape(network.predict, variables, x).shape[1:]
        if names_of(c.augment) and len(x.shape) != 4:
            raise DataError(
                f"augment is {c.augment!r}, which needs images [n, height, width, "
                f"channels]; inputs have shape {x.shape[1:]}"
            )
        if self.loss is None:  # only then is it known what it takes
            sets = {"test": test.y}
            if isinstance(train, Batch):
                sets["training"] = train.y
            for name, y in sets.items():
                check_labels(name, y, outputs, classes=c.loss == "cross_entropy")
        if self.metrics is None:
            for metric in names_of(c.metrics):
                check_labels("test", test.y, outputs, classes=metric in OF_CLASSES, what=metric)

    def step(self, traces: Traces) -> Step:
        """The compiled step of the seed network and of all that become of it."""
        c, names = self.config, names_of(self.config.augment)
        return make_step(
            self.loss or loss_named(c.loss, c.label_smoothing),
            looped=loops_well(traces.graph),
            augment=self.augment or (augmented(names) if names else None),
            mixup_alpha=c.mixup,
            precision=c.precision,
            ema_decay=c.ema_decay,
            teacher=Teacher(
                predict=traces.network.predict, weight=c.distill, temperature=c.distill_temperature
            )
            if c.distill
            else None,
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

    @property
    def measured(self) -> Mapping[str, Metric]:
        """What is measured of every network; patience goes by the first."""
        named = {name: METRICS[name] for name in names_of(self.config.metrics)}
        return named if self.metrics is None else self.metrics
