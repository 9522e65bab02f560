"""SmolLM2 pruned in one call, without training: perplexity against parameters.

    python benchmarks/prune_smollm2.py --out results/prune_smollm2.json

Calibration reads fortunes; perplexity is that of 128-token pieces of the two files that nothing
else reads (`experiments.texts.HELD_OUT`). The weights come with `.ci/fetch_data`, the texts are the
Debian package fortunes. Ours to beat: at 90 % of the parameters 1.15 times the original's
perplexity, at 80 % 1.6 times. About six minutes of two cores.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np
from timing import write

import morph
import regularizers as reg
from experiments import texts
from experiments.pretrained import smollm2
from experiments.pretrained.llama import next_token_loss

LENGTH, BATCH = 128, 4
PROMPT = "The best thing about a long journey is"
STEPS = 40


def perplexity(loss: Any, variables: Any, tokens: np.ndarray) -> float:
    """Of pieces, all tokens but the first of each."""
    starts = range(0, len(tokens) // BATCH * BATCH, BATCH)
    found = [float(loss(variables, tokens[i : i + BATCH])) for i in starts]
    return float(np.exp(np.mean(found)))


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.8, 0.9])
    parser.add_argument("--by", choices=("scores", "refit"), default="refit")
    parser.add_argument("--examples", type=int, default=32, help="pieces to allocate by")
    parser.add_argument("--refit", type=int, default=64, help="pieces to refit on; 0: do not")
    parser.add_argument("--held_out", type=int, default=60, help="pieces to measure on")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    module, variables = smollm2.load()
    words = smollm2.load_words()
    need = flags.examples + flags.refit
    known = texts.pieces(words.tokens("\n\n".join(texts.fortunes())), LENGTH, need)
    known = known[np.random.default_rng(0).permutation(len(known))]
    unseen = words.tokens("\n\n".join(texts.fortunes(texts.HELD_OUT)))
    unseen = texts.pieces(unseen, LENGTH, flags.held_out)
    unseen = texts.spread(unseen, flags.held_out)
    measured = [known[i : i + BATCH] for i in range(0, flags.examples, BATCH)]
    more = [known[i : i + BATCH] for i in range(0, need, BATCH)]
    loss = next_token_loss(module.apply)
    start = time.process_time()
    graph = reg.trace_channels(module.apply, variables, known[:1])
    cost = reg.model_size(graph)
    traced = time.process_time() - start
    print(f"trace and cost: {traced:.1f} s of CPU", flush=True)
    prompt = words.tokens(PROMPT)[None]

    def generate(variables: Any, tokens: Any) -> Any:
        return module.apply(variables, tokens, STEPS, method="generate")

    def row(own: float, fn: Any, say: Any, small: Any, **seconds: float) -> dict[str, Any]:
        found = {
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(small)),
            "budget": own,
            "perplexity": perplexity(jax.jit(fn), small, unseen),
            "says": words.text(np.asarray(jax.jit(say)(small, prompt))[0]),
            **seconds,
        }
        print(found, flush=True)
        return found

    rows = [row(1.0, loss, generate, variables)]
    for budget in flags.budgets:
        start = time.process_time()
        arch = morph.prune(
            graph, variables, cost, budget, loss=loss, batches=measured, by=flags.by, round_to=8
        )
        pruned = time.process_time() - start
        print(budget, f"pruned in {pruned:.0f} s of CPU", flush=True)
        start = time.process_time()
        small = arch.take(variables)
        if flags.refit:
            small = morph.refit(graph, arch, variables, fn=loss, batches=more)
        refit = time.process_time() - start
        print(budget, f"refit in {refit:.0f} s of CPU", flush=True)
        fn, say = morph.compact(loss, arch), morph.compact(generate, arch)
        rows.append(row(budget, fn, say, small, prune_cpu_s=pruned, refit_cpu_s=refit))
        rows[-1]["times"] = rows[-1]["perplexity"] / rows[0]["perplexity"]
        rows[-1]["widths"] = {k: v for k, v in arch.widths.items() if v != graph.widths[k]}
        if flags.out:
            write(
                rows, flags.out, prompt=PROMPT, by=flags.by, examples=flags.examples,
                refit=flags.refit, held_out=flags.held_out, trace_cpu_s=traced,
            )  # fmt: skip


if __name__ == "__main__":
    main()
