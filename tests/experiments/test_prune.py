"""A network with its weights, pruned by the command: with labels, without, and what it refuses."""

import itertools
import json

import numpy as np
import pytest

import morph
from experiments import prune, retrain, tested
from experiments.report import read_run

OWN = """
import flax.linen as nn
import jax
import numpy as np

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(24, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(3)(x)

def numbers(count):
    x = np.random.default_rng(0).normal(size=(count, 7)).astype(np.float32)
    return x, x[:, :3].argmax(-1).astype(np.int32)

def data():
    x, y = numbers(96)
    return (x[:64], y[:64]), (x[64:], y[64:])

def unlabelled():
    (x, _), (other, _) = data()
    return (x, None), (other, None)

def size(outputs, batch):
    return abs(outputs).mean(-1)

def start():
    return Net().init(jax.random.key(0), numbers(1)[0])

class Tokens(nn.Module):
    @nn.compact
    def __call__(self, tokens, train=False):
        return nn.Dense(11)(nn.relu(nn.Dense(8)(nn.Embed(11, 5)(tokens))))

def sentences():
    tokens = (np.arange(24)[:, None] + np.arange(9)).astype(np.int32) % 11
    return (tokens[:, :-1], tokens[:, 1:]), (tokens[:4, :-1], tokens[:4, 1:])

def tokens_start():
    return Tokens().init(jax.random.key(0), sentences()[0][0])

def letters(tokens):
    return "".join("<bcdefghijk"[token] for token in tokens)

def spread(outputs, batch):
    return (outputs ** 2).mean()
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return file


def launch(own, *arguments, **changes):
    given = {"model": f"{own}:Net", "data": f"{own}:data", "start": f"{own}:start"} | changes
    workdir = own.parent / "out"
    flags = [f"--{name}={value}" for name, value in given.items() if value is not None]
    small = ["--examples=32", "--batch_size=16", f"--workdir={workdir}"]
    prune.main(["prune", *flags, *small, *arguments])
    return workdir


def test_it_lands_tells_and_is_trained_on(own, capsys):
    workdir = launch(own, "--budget=0.5", "--round_to=4")
    run = read_run(workdir)
    assert [one["name"] for one in run.outcomes] == ["seed", "pruned"]
    seed, small = run.outcomes
    assert small["widths"] == {"Dense_0": 12}
    assert small["flops"] == 0.5 * seed["flops"]
    assert (workdir / "report.html").exists()
    assert "pruned" in capsys.readouterr().out
    variables = morph.load_variables(workdir / "variables")
    assert variables["params"]["Dense_0"]["kernel"].shape == (7, 12)
    mean = np.asarray(variables["batch_stats"]["BatchNorm_0"]["mean"])
    assert np.abs(mean).max() > 1e-3  # re-estimated: it was zero
    told = json.loads((workdir / "results.json").read_text())
    assert told["examples"] == 32
    assert told["start_fingerprint"]
    retrain.main([
        "retrain", f"--architecture={workdir / 'architecture.json'}",
        f"--variables={workdir / 'variables'}", f"--workdir={own.parent / 'again'}",
        f"--model={own}:Net", f"--data={own}:data", "--retrain_steps=3", "--batch_size=16",
    ])  # fmt: skip
    assert read_run(own.parent / "again").final["widths"] == {"Dense_0": 12}


@pytest.mark.parametrize(
    ("by", "changes"),
    [
        ("scores", {"data": "unlabelled", "metrics": "size"}),
        ("refit", {"distill": "1"}),
        ("scores", {"loss": "spread"}),
    ],
    ids=str,
)
def test_what_is_kept_is_asked_for(own, by, changes):
    paths = {name: f"{own}:{one}" if one.isalpha() else one for name, one in changes.items()}
    workdir = launch(own, "--budget=60%", f"--by={by}", **paths)
    assert read_run(workdir).final["cost"] <= 0.6 * read_run(workdir).outcomes[0]["cost"]


def test_texts_of_both_networks_are_in_the_report(own):
    paths = {"model": "Tokens", "data": "sentences", "start": "tokens_start", "text_of": "letters"}
    workdir = launch(
        own, "--examples=16", "--by=refit", "--metrics=log_likelihood",
        **{name: f"{own}:{one}" for name, one in paths.items()},
    )  # fmt: skip
    texts = json.loads((workdir / "results.json").read_text())["tested"]["texts"]
    assert [list(one) for one in texts] == [["given", "seed", "pruned"]] * tested.SAMPLES
    assert texts[1]["given"] == "bcdefghi"
    assert all(len(one["pruned"]) == tested.LENGTH for one in texts)
    seed = texts[0]["seed"]
    follows = dict(itertools.pairwise(seed))  # tokens see only themselves
    assert all(follows[one] == other for one, other in itertools.pairwise(seed))
    assert seed.replace("<", "&lt;") in (workdir / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "changes", "said"),
    [
        ([], {"start": None}, "--start is missing: name the weights to prune"),
        (["--budget=0.001"], {}, "cannot meet a budget of"),
        (["--budget=1.5"], {}, "must be below the present cost"),
        (["--examples=999"], {}, "--examples=999, but there are only 64 training examples"),
        (["--distill=0.5"], {}, "by the labels, 0, or by its own outputs, 1"),
        (["--expand=warm"], {}, "expand"),
        (["--text_of=os:getcwd"], {}, "for networks that are given tokens, integers [n, t]"),
    ],
)
def test_what_cannot_be_is_one_line(own, capsys, arguments, changes, said):
    with pytest.raises(SystemExit) as stop:
        launch(own, *arguments, **changes)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert not (own.parent / "out" / "results.json").exists()
