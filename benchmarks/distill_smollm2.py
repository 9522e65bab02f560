"""SmolLM2 pruned in one call, then taught by itself: perplexity against minutes of CPU.

    python benchmarks/distill_smollm2.py --workdir runs/smollm2 --out results/distill_smollm2.json

After the cut and the refit of `prune_smollm2.py` the small network learns the original's next-token
distributions on 128-token pieces of fortunes that calibration did not read. Perplexity is that of
pieces of the two files that nothing else reads; the settings were chosen on pieces of the others
(`validation`). Stopped, it goes on where it was.

Ours to beat, after at most 60 minutes of CPU each: at 80 % of the parameters 1.2 times the
original's perplexity, at 70 % 1.4 times.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from prune_smollm2 import BATCH, LENGTH, PROMPT, STEPS, perplexity
from timing import write

import morph
import regularizers as reg
from experiments import texts
from experiments.distilling import Distillation
from experiments.pretrained import smollm2
from experiments.pretrained.llama import next_token_loss
from morph.cycle.workdir import load_variables, save_variables
from morph.training.losses import soft_labels

EXAMPLES, REFIT, VALIDATION = 32, 64, 16  # pieces


def cut(budget: float, place: Path, module: Any, variables: Any, known: np.ndarray) -> Any:
    """The architecture and its refit variables; from the folder if they are there."""
    if (place / "variables").is_dir():
        return morph.Architecture.load(place / "architecture.json"), load_variables(
            place / "variables"
        )
    start = time.process_time()
    loss = next_token_loss(module.apply)
    graph = reg.trace_channels(module.apply, variables, known[:1])
    more = [known[i : i + BATCH] for i in range(0, EXAMPLES + REFIT, BATCH)]
    arch = morph.prune(
        graph, variables, reg.model_size(graph), budget, loss=loss,
        batches=more[: EXAMPLES // BATCH], by="refit", round_to=8,
    )  # fmt: skip
    small = morph.refit(graph, arch, variables, fn=loss, batches=more)
    place.mkdir(parents=True, exist_ok=True)
    arch = replace(arch, report={"cpu_s": time.process_time() - start})
    arch.save(place / "architecture.json")
    save_variables(place / "variables", small)
    return arch, small


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.8, 0.7])
    parser.add_argument("--steps", type=int, default=440)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--every", type=int, default=55, help="steps between two looks")
    parser.add_argument("--held_out", type=int, default=60, help="pieces to measure on")
    parser.add_argument("--workdir", default="runs/smollm2", help="keeps checkpoints")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    module, variables = smollm2.load()
    words = smollm2.load_words()
    need = EXAMPLES + REFIT + VALIDATION + BATCH
    known = texts.pieces(words.tokens("\n\n".join(texts.fortunes())), LENGTH, need)
    known = known[np.random.default_rng(0).permutation(len(known))]
    calibration, known = known[: EXAMPLES + REFIT], known[EXAMPLES + REFIT :]
    validation, lessons = known[:VALIDATION], known[VALIDATION:]
    unseen = words.tokens("\n\n".join(texts.fortunes(texts.HELD_OUT)))
    unseen = texts.pieces(unseen, LENGTH, flags.held_out)
    unseen = texts.spread(unseen, flags.held_out)
    prompt = words.tokens(PROMPT)[None]
    loss = next_token_loss(module.apply)

    def generate(variables: Any, tokens: Any) -> Any:
        return module.apply(variables, tokens, STEPS, method="generate")

    def says(fn: Any, own: Any) -> str:
        return words.text(np.asarray(jax.jit(fn)(own, prompt))[0])

    measured = {"validation": validation, "held_out": unseen}
    run = jax.jit(loss)
    original = {name: perplexity(run, variables, part) for name, part in measured.items()}
    print(original, flush=True)
    rows = []
    for budget in flags.budgets:
        place = Path(flags.workdir) / f"{budget:.0%}"
        arch, small = cut(budget, place, module, variables, calibration)
        small_run = jax.jit(morph.compact(loss, arch))

        def look(own: Any, run: Any = small_run) -> dict[str, float]:
            found = {name: perplexity(run, own, part) for name, part in measured.items()}
            point = {name: value / original[name] for name, value in found.items()}
            print(point, flush=True)
            return point

        def batch(step: int) -> np.ndarray:
            rows = np.arange((step - 1) * BATCH, step * BATCH) % len(lessons)
            return lessons[rows]

        learned, curve = Distillation(
            teacher=module.apply,
            taught_by=variables,
            student=morph.compact(module.apply, arch),
            loss=soft_labels,
            batch=batch,
            steps=flags.steps,
            rate=flags.rate,
            every=flags.every,
        ).run(small, place, look, told={"budget": budget})
        say = morph.compact(generate, arch)
        rows.append(
            {
                "budget": budget,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(learned)),
                "cut_cpu_s": arch.report["cpu_s"],
                "distill_cpu_s": curve[-1]["cpu_s"],
                "times_before": curve[0]["held_out"],
                "times": curve[-1]["held_out"],
                "says_before": says(say, small),
                "says": says(say, learned),
                "curve": curve,
            }
        )
        print(rows[-1], flush=True)
        if flags.out:
            write(
                rows, flags.out, perplexity=original, prompt=PROMPT, says=says(generate, variables),
                batch=[BATCH, LENGTH], steps=flags.steps, rate=flags.rate,
            )  # fmt: skip


if __name__ == "__main__":
    main()
