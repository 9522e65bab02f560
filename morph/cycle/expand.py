"""The shrunk network is widened back to a budget; nothing trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from morph.architecture.expand import widening
from morph.cycle.context import Context
from morph.cycle.phase import Work, waiting
from morph.cycle.progress import Carried
from morph.cycle.schedule import Stretch
from morph.cycle.starts import told_apart
from morph.network import Variables
from morph.training.layout import even_after


@dataclass(frozen=True)
class Expand:
    """Widens a network, or leaves it; and what the next phase starts from."""

    stretch: Stretch
    warm: bool  # from the weights that it has

    def prepare(self, run: Context, carried: Carried, variables: Variables | None) -> Work:
        """The shrunk network."""
        return waiting(run, carried.architecture, variables)

    def train(self, run: Context, work: Work, start: int) -> Iterator[int]:
        """Nothing."""
        del run, work, start
        return iter(())

    def finish(self, run: Context, work: Work, carried: Carried) -> tuple[Carried, Variables]:
        """The wider architecture, and its variables, inherited or fresh."""
        c, shrunk, variables = run.config, work.architecture, work.state.variables
        wide, following = shrunk, self.stretch.number + 1
        if c.shrink_to is not None:
            graph, price = run.traces.of(shrunk), run.measure.prices.of(shrunk)["cost"]
            step = widening(graph, shrunk, price, run.budget, c.round_to, warm=self.warm)
            wide = shrunk.then(step)
            if self.warm:
                variables = told_apart(
                    step, step.take(even_after(step, variables)), run.key(following)
                )
        if not self.warm:
            variables = run.drawn(wide, following)
        return replace(carried, architecture=wide), variables
