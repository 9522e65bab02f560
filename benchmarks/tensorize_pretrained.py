"""Networks with weights that others trained, factorized: what is lost, without data and with.

    python benchmarks/tensorize_pretrained.py mnist mobilenet minilm \
        --out results/tensorize_pretrained.json

Each study can run alone; the file keeps the others. Data and weights as `.ci/fetch_data` installs
them, sentences of the Debian package `fortunes`.

- mnist: a CNN of 99.06 %; Tucker-2 for its windows and SVD for its dense layers, at EVBMF ranks and
  at budgets. EVBMF finds rank 1 in the first layer, of one input, and in the last, of ten outputs,
  and no training mends that: in the second plan they stay dense. Calibrated on pictures of the
  train set; accuracy before and after one epoch of training all cores. The learning rate was chosen
  on the last 10,000 pictures of the train set, after the first 20,000 (`mnist_rate`).
- mobilenet: the 1x1 convolutions of MobileNetV2 by SVD, at 25 % fewer FLOPs of the network, on 20
  labelled pictures; no label is seen but to count. Calibrated on 20 random crops, half of them
  mirrored: of 10 pictures for the other 10 and the other way round, or of the same 20, which are
  tested whole.
- minilm: the feed-forward layers of a sentence embedder at half their parameters; cosine
  similarities to the embeddings of the original, on sentences that it was not calibrated on.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from fitting import size
from timing import interleaved, median_ratio, report

import morph
import regularizers as reg
from experiments.datasets import load
from experiments.pretrained import imagenet_pictures, minilm, mnist_cnn, mobilenet_v2
from morph.files import write_text
from morph.tensorize.graphs import factorized_graph

BATCH = 128
MNIST_CALIBRATION = 512  # pictures
MNIST_PLANS: Mapping[str, Mapping[str, Any]] = {
    "EVBMF ranks": {"rank": "vbmf"},
    "EVBMF ranks, first and last layer dense": {
        "rank": "vbmf",
        "kind": {"conv_0": "dense", "logits": "dense", "*": "auto"},
    },
    "50 % of FLOPs": {"budget": 0.5},
    "25 % of FLOPs": {"budget": 0.25},
    "25 % of parameters": {"budget": 0.25, "cost": "size"},
}
RATES = (1e-4, 3e-4, 1e-3)  # peak, of Adam, that falls to 0 as a cosine
RATE = 3e-4
RATE_PICTURES = 20_000  # that rates are compared on
LATENCY_BATCHES, REPEATS = (1, 256), 15
MOBILENET_DATA = ("none", "crops of the others", "crops of the same")
PICTURES = 20  # to calibrate MobileNetV2 on
FORTUNES = Path("/usr/share/games/fortunes")
SUBJECTS = ("literature", "people", "science", "wisdom", "work")
TOKENS, TEST_TOKENS = 32, 48
SENTENCES, TEST_SENTENCES = 128, 256  # to calibrate on, to test on

Study = Callable[[], list[dict[str, Any]]]


def told(text: str) -> None:
    """Tells on stderr how far it is."""
    print(f"{time.strftime('%X')} {text}", file=sys.stderr, flush=True)


def sizes(plan: morph.TensorizePlan, graph: Any, variables: Any, batch: int) -> dict[str, Any]:
    """What a planned network holds and costs, also as a share of the dense one."""
    cores = size(jax.tree.leaves(plan.factorize(variables)))
    flops = reg.flops(factorized_graph(graph, plan.kernels))()
    return {
        "parameters": cores,
        "of_parameters": cores / size(variables),
        "mflop": flops / batch / 1e6,
        "of_flops": flops / reg.flops(graph)(),
    }


# ---- MNIST


def mnist() -> list[dict[str, Any]]:
    """Accuracies of all plans, before and after an epoch, and latencies."""
    model, variables = mnist_cnn.load()
    data = load("mnist")
    graph, plans = mnist_plans(model, variables, data)
    fn = jax.jit(morph.tensorized(model.apply))
    dense = accuracy(fn, variables, data.test_images, data.test_labels)
    whole = {"plan": "dense", "parameters": size(variables), "accuracy": dense}
    rows = [{**whole, "mflop": reg.flops(graph)() / MNIST_CALIBRATION / 1e6}]
    for name, ways in plans.items():
        found = {}
        for way, plan in ways.items():
            cores = plan.factorize(variables)
            found[way] = accuracy(fn, cores, data.test_images, data.test_labels)
        told(f"{name}: {found}")
        kernels = {path: list(k.ranks.values()) for path, k in ways["asymmetric"].kernels.items()}
        tuned = one_epoch(fn, cores, data.train_images, data.train_labels, RATE)
        after = accuracy(fn, tuned, data.test_images, data.test_labels)
        told(f"{name}: {after} after an epoch")
        rows.append({
            "plan": name,
            **sizes(ways["asymmetric"], graph, variables, MNIST_CALIBRATION),
            "accuracy_without_data": found["none"],
            "accuracy_with_data": found["asymmetric"],
            "accuracy_after_an_epoch": after,
            **latencies(model.apply, variables, cores, data.test_images),
            "ranks": kernels,
        })  # fmt: skip
    return rows


def mnist_rate() -> list[dict[str, Any]]:
    """Accuracies on the last 10,000 pictures of the train set, by learning rate."""
    model, variables = mnist_cnn.load()
    data = load("mnist")
    _, plans = mnist_plans(model, variables, data, names=("25 % of FLOPs",))
    fn = jax.jit(morph.tensorized(model.apply))
    cores = plans["25 % of FLOPs"]["asymmetric"].factorize(variables)
    x, labels = data.train_images, data.train_labels
    rows = []
    for rate in RATES:
        tuned = one_epoch(fn, cores, x[:RATE_PICTURES], labels[:RATE_PICTURES], rate)
        rows.append({"rate": rate, "accuracy": accuracy(fn, tuned, x[-10_000:], labels[-10_000:])})
        told(str(rows[-1]))
    return rows


def mnist_plans(
    model: Any, variables: Any, data: Any, names: Any = tuple(MNIST_PLANS)
) -> tuple[Any, dict[str, dict[str, morph.TensorizePlan]]]:
    """The traced graph, and the plans by name, made without data and with them."""
    x = data.train_images[:MNIST_CALIBRATION]
    graph = reg.trace_channels(model.apply, variables, x)
    return graph, {
        name: {
            "none": morph.tensorize_plan(graph, variables, **MNIST_PLANS[name]),
            "asymmetric": morph.tensorize_plan(
                graph, variables, **MNIST_PLANS[name], calibration=(x,)
            ),
        }
        for name in names
    }


def accuracy(fn: Any, variables: Any, images: np.ndarray, labels: np.ndarray) -> float:
    """In percent."""
    parts = np.split(images, len(images) // 1000)
    found = np.concatenate([fn(variables, part).argmax(-1) for part in parts])
    return 100.0 * float((found == labels).mean())


def one_epoch(fn: Any, variables: Any, images: np.ndarray, labels: np.ndarray, rate: float) -> Any:
    """All variables, cores and biases, trained on every picture once."""
    steps = len(images) // BATCH
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    @jax.jit
    def step(variables: Any, state: Any, x: Any, labels: Any) -> Any:
        def loss(variables: Any) -> Any:
            logits = fn(variables, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = tx.update(jax.grad(loss)(variables), state, variables)
        return optax.apply_updates(variables, updates), state

    state = tx.init(variables)
    order = np.random.default_rng(0).permutation(len(images))[: steps * BATCH]
    for taken in order.reshape(steps, BATCH):
        variables, state = step(variables, state, images[taken], labels[taken])
    return variables


def latencies(apply: Any, variables: Any, cores: Any, images: np.ndarray) -> dict[str, float]:
    """Times by those of the dense network: medians of neighbouring measurements."""
    found = {}
    for batch in LATENCY_BATCHES:
        x = jnp.asarray(images[:batch])
        runs = {"dense": (jax.jit(apply), variables)}
        for mode in ("factorized", "auto"):
            runs[mode] = jax.jit(morph.tensorized(apply, mode=mode)), cores
        calls = {name: lambda f=f, v=v, x=x: f(v, x) for name, (f, v) in runs.items()}
        seconds = interleaved(calls, REPEATS, calls=50 if batch == 1 else 1)
        for mode in ("factorized", "auto"):
            ratio = median_ratio(seconds[mode], seconds["dense"])
            found[f"time_{mode}_{batch}"] = ratio
    return found


# ---- MobileNetV2


def mobilenet(chosen: Sequence[str] = MOBILENET_DATA) -> list[dict[str, Any]]:
    """Top-1 and top-5 of the 20 pictures, by what the plan was calibrated on."""
    model, variables = mobilenet_v2.load()
    images, labels = imagenet_pictures.load()
    graph = reg.trace_channels(model.apply, variables, jnp.zeros((PICTURES, 224, 224, 3)))
    kind = {"stem": "dense", "logits": "dense", "*": "svd"}
    fn = jax.jit(morph.tensorized(model.apply))
    expected = np.asarray(fn(variables, images))
    rows = [{"data": "dense", "parameters": size(variables), **top(expected, expected, labels)}]
    everything = np.full(20, True)
    halves = [np.arange(20) % 2 == k for k in (0, 1)]
    # For each plan: pictures whose crops it is calibrated on, and pictures that it is tested on.
    plans_of = {
        "none": [(None, everything)],
        "crops of the others": [(~half, half) for half in halves],
        "crops of the same": [(everything, everything)],
    }
    for data in chosen:
        logits, start = np.zeros_like(expected), time.perf_counter()
        for seen, tested in plans_of[data]:
            how = {} if seen is None else {"calibration": (crops(seen),)}
            plan = morph.tensorize_plan(graph, variables, kind=kind, budget=0.75, **how)
            logits[tested] = np.asarray(fn(plan.factorize(variables), images))[tested]
            told(f"{data}: {top(logits[tested], expected[tested], labels[tested])}")
        rows.append({
            "data": data,
            **sizes(plan, graph, variables, PICTURES),
            **top(logits, expected, labels),
            "factorized_kernels": len(plan.kernels),
            "seconds_of_a_plan": (time.perf_counter() - start) / len(plans_of[data]),
        })  # fmt: skip
    return rows


def crops(chosen: np.ndarray) -> np.ndarray:
    """`PICTURES` random crops of some pictures, of 61 % of the area, half of them mirrored."""
    images = imagenet_pictures.load(size=288).images[chosen]
    rng = np.random.default_rng(0)
    found = []
    for k in range(PICTURES):
        top, left = rng.integers(0, 288 - 224, 2)
        crop = images[k % len(images), top : top + 224, left : left + 224]
        found.append(crop[:, ::-1] if k % 2 else crop)
    return np.stack(found)


def top(logits: np.ndarray, expected: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How many of the 20 are right, and how far the logits are from the dense network's."""
    order = np.argsort(-logits, axis=1)
    return {
        "top1": int((order[:, 0] == labels).sum()),
        "top5": int((order[:, :5] == labels[:, None]).any(1).sum()),
        "top1_as_dense": int((order[:, 0] == expected.argmax(1)).sum()),
        "logit_error": float(np.linalg.norm(logits - expected) / np.linalg.norm(expected)),
    }


# ---- MiniLM


def embeddings() -> list[dict[str, Any]]:
    """Cosine similarities to the dense network's embeddings, by kind and data."""
    model, variables = minilm.load()
    seen, unseen = sentences()
    graph = reg.trace_channels(model.apply, variables, seen)
    fn = jax.jit(morph.tensorized(model.apply))
    expected = np.concatenate([fn(variables, part) for part in np.split(unseen, 4)])
    layers = variables["params"]
    forward = sum(
        layers[name][part]["kernel"].size
        for name in layers
        if name.startswith("layer_")
        for part in ("expand", "project")
    )
    budget = (size(variables) - forward / 2) / size(variables)
    rows = []
    for kind in ("svd", "tt"):
        kinds = {"layer_*/expand": kind, "layer_*/project": kind, "*": "dense"}
        for response in ("", "asymmetric"):
            start = time.perf_counter()
            how = {"calibration": (seen,), "response": response} if response else {}
            plan = morph.tensorize_plan(
                graph, variables, kind=kinds, budget=budget, cost="size", **how
            )
            seconds = time.perf_counter() - start
            cores = plan.factorize(variables)
            found = np.concatenate([fn(cores, part) for part in np.split(unseen, 4)])
            cosines = (found * expected).sum(1)
            left = forward - (size(variables) - size(jax.tree.leaves(cores)))
            rows.append({
                "kind": kind,
                "response": response or "none",
                "of_feed_forward_parameters": left / forward,
                **sizes(plan, graph, variables, SENTENCES),
                "mean_cosine": float(cosines.mean()),
                "worst_cosine": float(cosines.min()),
                "seconds": seconds,
            })  # fmt: skip
            told(str(rows[-1]))
    return rows


def sentences() -> tuple[np.ndarray, np.ndarray]:
    """Tokens to calibrate on, [N, TOKENS], none of them padding, and others to test on."""
    texts = list(dict.fromkeys(fortunes()))
    np.random.default_rng(0).shuffle(texts)
    long = minilm.load_tokenizer(max_tokens=TOKENS)(texts)
    full = (long != minilm.PAD).all(1)
    seen = np.flatnonzero(full)[:SENTENCES]
    rest = np.setdiff1d(np.arange(len(texts)), seen)[:TEST_SENTENCES]
    tokenize = minilm.load_tokenizer(max_tokens=TEST_TOKENS)
    return long[seen], tokenize([texts[k] for k in rest])


def fortunes() -> Iterator[str]:
    """Quotations of 5 words or more, without who said them."""
    for subject in SUBJECTS:
        for text in (FORTUNES / subject).read_text("utf-8", errors="replace").split("\n%\n"):
            words = re.split(r"\n\s*-- ", text)[0].split()
            if len(words) >= 5:
                yield " ".join(words)


STUDIES: Mapping[str, Study] = {
    "mnist": mnist,
    "mnist_rate": mnist_rate,
    "mobilenet": mobilenet,
    "minilm": embeddings,
}


def main() -> None:
    """Runs the studies and writes their rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+", choices=STUDIES)
    parser.add_argument("--out", help="a JSON file; studies that do not run now stay in it")
    args = parser.parse_args()
    for name in args.studies:
        rows = STUDIES[name]()
        print(name)
        report(rows, None)
        if args.out:
            file = Path(args.out)
            known = json.loads(file.read_text("utf-8")) if file.exists() else {}
            known["device"] = jax.devices()[0].device_kind
            known["versions"] = {name: version(name) for name in ("jax", "flax", "numpy")}
            command = f"python benchmarks/tensorize_pretrained.py {name} --out {args.out}"
            studies = known.setdefault("studies", {})
            studies[name] = {"command": command, "rows": rows}
            write_text(file, json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
