"""all-MiniLM-L6-v2 at half its FLOPs: pruned, refit, and taught by itself; on time in ONNX Runtime.

    python benchmarks/distill_minilm.py --workdir runs/minilm --out results/distill_minilm.json

It learns from senses and words of a dictionary and sentences of fortunes, without labels. Words
whose checksum says so are kept out of that: of one fiftieth `--validate` measures, for choices; of
another the table, once: for each sense its word is looked for among all words held out, and the
other way round. Cosines are to the original's embeddings, of those senses, and of the fortunes
that nothing else reads; all by the exported files, which are timed in turn, on one thread. Needs
the Debian packages fortunes and dict-gcide, and `.ci/fetch_data`; stopped, it goes on where it was.

Ours to beat: mean reciprocal rank within 3 points of the original's, cosine 0.95, 1.7 times as
fast in batches of 1 and 32; all after at most 60 minutes of CPU.
"""

import argparse
import re
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from onnx_speed import session
from timing import write

import morph
import regularizers as reg
from experiments import texts
from experiments.distilling import Distillation
from experiments.pretrained import minilm
from morph.cycle.workdir import load_variables, save_variables
from morph.export import onnx
from morph.training.losses import cosine_distance, responses

SLICES, TEST, VALIDATION = 50, 0, 1  # of all words
LENGTHS = (8, 16, 32, 64)  # tokens that sentences are filled up to
TOKENS = 1024  # of a batch
CALIBRATION, CALIBRATION_BATCH, CALIBRATION_LENGTH = 256, 32, 32
HEAD_WIDTH, HIDDEN = 32, 640  # at least: whole heads go, and they are slow for their FLOPs
TIMED_LENGTH, ROUNDS = 32, 60  # tokens of a sentence in the exported files, the rest cut off
MODULE = minilm.MiniLM()


def slice_of(word: str) -> int:
    """Which slice of the dictionary a word is in, whatever its case."""
    return zlib.crc32(word.lower().encode()) % SLICES


def sentences_of(sayings: Sequence[str]) -> list[str]:
    """Sentences of sayings, without who said it."""
    found = []
    for saying in sayings:
        text = " ".join(saying.split("\n\t\t--")[0].split())
        found += [one for one in re.split(r"(?<=[.?!]) +", text) if 3 <= len(one.split()) <= 40]
    return list(dict.fromkeys(found))


class Sentences:
    """Sentences as batches of one length each."""

    def __init__(self, tokenize: minilm.Tokenize, sentences: Sequence[str]) -> None:
        tokens = tokenize(sentences)
        long = (tokens != minilm.PAD).sum(axis=1)
        self.buckets, below = [], 0
        for length in LENGTHS:
            rows = tokens[(long > below) & (long <= length)][:, :length]
            rows = np.pad(rows, ((0, 0), (0, length - rows.shape[1])))
            self.buckets.append(rows)
            below = length
        weights = np.asarray([rows.size for rows in self.buckets], float)
        self.shares = weights / weights.sum()

    def batch(self, step: int) -> np.ndarray:
        """The tokens of a step; how often a length comes is how many tokens there are of it."""
        rng = np.random.default_rng((1, step))
        rows = self.buckets[rng.choice(len(LENGTHS), p=self.shares)]
        return rows[rng.integers(len(rows), size=TOKENS // rows.shape[1])]


def everything(variables: Any, tokens: Any) -> Any:
    """The states behind all layers, 0 where a sentence is filled up, and the embedding."""
    states = MODULE.apply(variables, tokens, method="states")
    mask = (tokens != minilm.PAD)[..., None]
    return {
        "states": tuple(x * mask for x in states),
        "embedding": minilm.pooled(states[-1], tokens),
    }


def distance(outputs: Any, taught: Any) -> Any:
    """Of embeddings the angle, of states the relative squared error."""
    angle = cosine_distance(outputs["embedding"], taught["embedding"])
    return angle + responses(outputs["states"], taught["states"])


Embed = Callable[[np.ndarray], np.ndarray]  # tokens of some sentences -> their embeddings


def embedded(
    embed: Embed, tokenize: minilm.Tokenize, sentences: Sequence[str], lengths: Sequence[int]
) -> np.ndarray:
    """Embeddings [N, C], of batches that are filled up to one of some lengths."""
    order = np.argsort([len(one) for one in sentences], kind="stable")
    found: dict[int, np.ndarray] = {}
    for i in range(0, len(order), 64):
        rows = order[i : i + 64]
        tokens = tokenize([sentences[k] for k in rows])
        length = next(n for n in lengths if n >= tokens.shape[1])
        tokens = np.pad(tokens, ((0, 64 - len(rows)), (0, length - tokens.shape[1])))
        found |= dict(zip(rows.tolist(), np.asarray(embed(tokens)), strict=False))
    return np.stack([found[k] for k in range(len(sentences))])


def retrieval(queries: np.ndarray, keys: np.ndarray) -> dict[str, float]:
    """Of each query's rank of its own key: the mean reciprocal, and how many are at most 10."""
    scores = queries @ keys.T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    return {"mrr": float((1.0 / ranks).mean()), "recall_at_10": float((ranks <= 10).mean())}


class Exam:
    """Questions on a slice of the dictionary, and sentences for cosines.

    Attributes:
        words: of the slice, one of each spelling.
        senses: the first of each.
        sentences: others.
    """

    def __init__(self, entries: Sequence[texts.Entry], which: int, sentences: list[str]) -> None:
        first = {}
        for entry in entries:
            if slice_of(entry.word) == which:
                first.setdefault(entry.word.lower(), entry.sense)
        self.words, self.senses = list(first), list(first.values())
        self.sentences = sentences
        self.original: dict[str, np.ndarray] = {}

    def taken(
        self, embed: Embed, tokenize: minilm.Tokenize, lengths: Sequence[int] = LENGTHS
    ) -> dict[str, Any]:
        """What an embedder scores; the first one is the original."""
        parts = {"words": self.words, "senses": self.senses, "sentences": self.sentences}
        own = {name: embedded(embed, tokenize, part, lengths) for name, part in parts.items()}
        self.original = self.original or own
        cosines = {
            f"cosine_{name}": float((e * self.original[name]).sum(-1).mean())
            for name, e in own.items()
        }
        return {
            "sense_to_word": retrieval(own["senses"], own["words"]),
            "word_to_sense": retrieval(own["words"], own["senses"]),
            **cosines,
        }


def cut(flags: argparse.Namespace, variables: Any, known: Sentences) -> tuple[Any, Any, float]:
    """The architecture, its refit variables, and the seconds of CPU; from the folder if there."""
    place = Path(flags.workdir) / "pruned"
    if (place / "variables").is_dir():
        arch = morph.Architecture.load(place / "architecture.json")
        return arch, load_variables(place / "variables"), arch.report["cpu_s"]
    start = time.process_time()
    x = jax.ShapeDtypeStruct((1, CALIBRATION_LENGTH), "int32")
    graph = reg.trace_channels(MODULE.apply, variables, x)
    rows = np.concatenate([b for b in known.buckets if b.shape[1] <= CALIBRATION_LENGTH][-1:])
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:CALIBRATION]]
    batches = np.split(rows, CALIBRATION // CALIBRATION_BATCH)
    # By name, heads before what lies within them: the first that names a layer wins.
    least = {minilm.HEADS: 1, HEAD_WIDTH: HEAD_WIDTH, minilm.HIDDEN: HIDDEN}
    floors = {name: least[width] for name, width in graph.widths.items()}
    arch = morph.prune(
        graph, variables, reg.flops(graph), flags.budget, fn=MODULE.apply, batches=batches,
        by="refit", round_to=flags.round_to, floors=floors,
    )  # fmt: skip
    small = morph.refit(graph, arch, variables, fn=MODULE.apply, batches=batches)
    seconds = time.process_time() - start
    ratio = float(reg.flops(graph)(arch.widths) / reg.flops(graph)())
    place.mkdir(parents=True, exist_ok=True)
    arch = replace(arch, report={"cpu_s": seconds, "flops_ratio": ratio})
    arch.save(place / "architecture.json")
    save_variables(place / "variables", small)
    return arch, small, seconds


def timed(sessions: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of the files in ONNX Runtime, in turn, and their ratios.

    Seconds of CPU: on one thread that is what the clock would show if nothing else ran.
    """
    found: dict[str, Any] = {}
    for batch in (1, 32):
        tokens = np.random.default_rng(0).integers(1000, 20000, (batch, TIMED_LENGTH), np.int32)
        seconds: dict[str, list[float]] = {name: [] for name in sessions}
        for _ in range(ROUNDS):
            for name, run in sessions.items():
                began = time.process_time()
                run.run(None, {onnx.INPUT: tokens})
                seconds[name].append(time.process_time() - began)
        own = {name: np.asarray(s[5:]) for name, s in seconds.items()}
        first, second = own.values()
        found[f"batch {batch}"] = {
            "cpu_milliseconds": {name: 1e3 * float(np.median(s)) for name, s in own.items()},
            "speedup": float(np.median(first / second)),
        }
    return found


def main() -> None:
    """Writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=0.5, help="of the FLOPs of 32 tokens")
    parser.add_argument("--round_to", type=int, default=32)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--every", type=int, default=150, help="steps between two looks")
    parser.add_argument("--validate", action="store_true", help="stop before the test slice")
    parser.add_argument("--workdir", default="runs/minilm", help="checkpoints, exported files")
    parser.add_argument("--out", help="write the table as JSON to this path")
    flags = parser.parse_args()
    _, variables = minilm.load()
    tokenize = minilm.load_tokenizer(max_tokens=LENGTHS[-1])
    entries = texts.dictionary()
    mine = [entry for entry in entries if slice_of(entry.word) not in (TEST, VALIDATION)]
    said = sentences_of(texts.fortunes())
    cosines, said = said[:500], said[500:]
    material = dict.fromkeys([*(e.sense for e in mine), *(e.word for e in mine), *said])
    known = Sentences(tokenize, list(material))
    print(len(material), "sentences", known.shares, flush=True)
    arch, small, prune_cpu_s = cut(flags, variables, known)
    print(arch.report, arch.widths, flush=True)
    original = jax.jit(MODULE.apply)
    embed = jax.jit(morph.compact(MODULE.apply, arch))
    validation = Exam(entries, VALIDATION, cosines)
    validation.taken(lambda tokens: original(variables, tokens), tokenize)

    def look(own: Any) -> dict[str, float]:
        found = validation.taken(lambda tokens: embed(own, tokens), tokenize)
        point = {
            "mrr_sense_to_word": found["sense_to_word"]["mrr"],
            "mrr_word_to_sense": found["word_to_sense"]["mrr"],
            **{name: value for name, value in found.items() if name.startswith("cosine")},
        }
        print(point, flush=True)
        return point

    learned, curve = Distillation(
        teacher=everything,
        taught_by=variables,
        student=morph.compact(everything, arch),
        loss=distance,
        batch=known.batch,
        steps=flags.steps,
        rate=flags.rate,
        every=flags.every,
    ).run(small, Path(flags.workdir), look, told={"budget": flags.budget})
    if flags.validate:
        return
    small_fn = morph.compact(MODULE.apply, arch)
    networks = {
        "original": (MODULE.apply, variables),
        "pruned": (small_fn, small),
        "distilled": (small_fn, learned),
    }
    short = minilm.load_tokenizer(max_tokens=TIMED_LENGTH)
    unseen = sentences_of(texts.fortunes(texts.HELD_OUT))
    test = Exam(entries, TEST, unseen)
    rows, sessions = [], {}
    example = jnp.ones((2, TIMED_LENGTH), jnp.int32)
    for name, (fn, own) in networks.items():
        path = Path(flags.workdir) / f"{name}.onnx"
        onnx.to_onnx(fn, own, example, path)  # batches of any size
        run = sessions[name] = session(path)
        rows.append(
            {
                "network": name,
                "parameters": sum(leaf.size for leaf in jax.tree.leaves(own)),
                "megabytes": path.stat().st_size / 1e6,
                **test.taken(
                    lambda x, run=run: run.run(None, {onnx.INPUT: x})[0], short, (TIMED_LENGTH,)
                ),
            }
        )
        print(rows[-1], flush=True)
    times = timed({name: sessions[name] for name in ("original", "distilled")})
    print(times, flush=True)
    if flags.out:
        write(
            rows, flags.out, flops_ratio=arch.report["flops_ratio"], prune_cpu_s=prune_cpu_s,
            distill_cpu_s=curve[-1]["cpu_s"], onnxruntime=times, timed_tokens=TIMED_LENGTH,
            test={"words": len(test.words), "sentences": len(unseen)}, sentences=len(material),
            widths=dict(arch.widths), curve=curve,
        )  # fmt: skip


if __name__ == "__main__":
    main()
