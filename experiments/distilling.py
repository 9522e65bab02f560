"""What is left of a network learns from the network that it was, without labels; resumable.

Source: Hinton et al. 2015, "Distilling the knowledge in a neural network".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from morph.cycle.checkpoint import Checkpoints
from morph.cycle.workdir import claim_workdir, locked
from morph.network import Variables
from morph.training.data import Batch
from morph.training.losses import LabelLoss, Teacher
from morph.training.optimizers import make_optimizer, rate_schedule
from morph.training.step import TrainState, check_finite, make_objective, make_step

Outputs: TypeAlias = Callable[[Any, Any], Any]  # (variables, x) -> outputs
CLIP_NORM = 1.0


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a network learns from another.

    Attributes:
        teacher: `(variables, x) -> outputs` of the network that teaches.
        taught_by: its variables.
        student: likewise, of the network that learns, e.g. `morph.compact(teacher, arch)`.
        loss: `(outputs, taught) -> scalar`: how far the student is from the teacher.
        batch: the inputs of a step, by its number; their shapes may differ.
        steps: how many; the rate warms up and falls to zero over them.
        rate: the peak learning rate, of AdamW.
        weight_decay: of kernels.
        every: steps between two looks, each of which is a point of the curve and a checkpoint.
    """

    teacher: Outputs
    taught_by: Variables
    student: Outputs
    loss: LabelLoss
    batch: Callable[[int], Any]
    steps: int
    rate: float
    weight_decay: float = 0.0
    every: int = 100

    def run(
        self,
        start: Variables,
        workdir: Path,
        look: Callable[[Variables], Mapping[str, float]],
        *,
        told: Mapping[str, Any],
    ) -> tuple[Variables, list[dict[str, float]]]:
        """Trains, from the last checkpoint on if there is one.

        Args:
            start: the student's variables at the first step.
            workdir: keeps the checkpoints.
            look: measures a student; before the first step, every so many, and after the last.
            told: plain JSON that says what is distilled; a folder of something else is refused.

        Returns:
            The variables, and the curve: at each look the steps done, the seconds of CPU that they
            took, the mean loss since the last look, and what was measured.

        Raises:
            WorkdirError: if the folder holds something else, or cannot be read or written.
            TrainingDivergedError: if a loss is not finite.
        """
        settings = {
            "steps": self.steps,
            "rate": self.rate,
            "weight_decay": self.weight_decay,
            "every": self.every,
        }
        with locked(workdir), closing(Checkpoints(workdir)) as checkpoints:
            claim_workdir(workdir, {**settings, **told})
            return self._run(start, checkpoints, look)

    def _run(
        self,
        start: Variables,
        checkpoints: Checkpoints,
        look: Callable[[Variables], Mapping[str, float]],
    ) -> tuple[Variables, list[dict[str, float]]]:
        state, curve = self._state(start), []
        if (saved := checkpoints.newest()) is not None:
            state = _with(state, jax.tree.map(jnp.asarray, saved.into(_kept(state))))
            curve = saved.progress["curve"]
        else:
            curve = [{"step": 0, "cpu_s": 0.0, **look(state.variables)}]
        taught = Teacher(predict=self.teacher, weight=1.0, loss=self.loss)
        step = make_step(make_objective(None, teacher=taught), looped=False)
        key, losses, spent = jax.random.key(0), [], 0.0
        for done in range(int(state.step) + 1, self.steps + 1):
            began = time.process_time()
            one = Batch(jax.tree.map(lambda leaf: np.asarray(leaf)[None], self.batch(done)), None)
            state, found = step(state, None, one, key)
            losses.append(float(found[0]))
            spent += time.process_time() - began
            check_finite(losses[-1], step=done, phase="distillation")
            if done % self.every and done < self.steps:
                continue
            point = {"step": done, "cpu_s": curve[-1]["cpu_s"] + spent}
            curve.append({**point, "loss": float(np.mean(losses)), **look(state.variables)})
            losses, spent = [], 0.0
            checkpoints.save(_kept(state), {"curve": curve})
        checkpoints.wait()
        return state.variables, curve

    def _state(self, start: Variables) -> TrainState:
        tx = make_optimizer(
            "adamw",
            rate_schedule(self.rate, self.steps),
            weight_decay=self.weight_decay,
            clip_norm=CLIP_NORM,
        )
        rest = {name: value for name, value in start.items() if name != "params"}
        return TrainState.create(
            apply_fn=lambda variables, x, key: (self.student(variables, x), {}),
            params=_copied(start["params"]),
            tx=tx,
            collections=_copied(rest),
            teacher=_copied(self.taught_by),
        )


def _copied(tree: Any) -> Any:
    """Arrays of one's own: a step takes over those of the state that it is given."""
    return jax.tree.map(jnp.array, tree)


def _kept(state: TrainState) -> dict[str, Any]:
    """What a checkpoint holds of a state."""
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state}


def _with(state: TrainState, kept: Mapping[str, Any]) -> TrainState:
    return state.replace(**{**kept, "step": int(kept["step"])})
