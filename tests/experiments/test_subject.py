"""A network, data and a task of somebody's own, at every command; and what is wrong with them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from experiments import compress, retrain, subject, sweep, targets
from experiments.console.flags import define_settings
from experiments.report import read_run
from morph.errors import ConfigError, DataError, ImportedError
from morph.training.data import Batch

ROOT = Path(__file__).parents[2]
QUICKLY = {  # to compile takes longer than to run
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
    "XLA_FLAGS": os.environ["XLA_FLAGS"],  # as conftest.py sets them
}
OWN = """
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import morph


class Net(nn.Module):
    @nn.compact
    def __call__(self, first, second, train=False):
        x = jnp.concatenate([first, second], -1)
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(12)(x)))
        return nn.Dense(2, name="head")(nn.relu(nn.Dense(7)(x)))


class Sized(nn.Module):
    size: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.size)(x)


def data():
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(2, 60, 3)).astype(np.float32)
    y = np.stack([pair[0].sum(1), pair[1].sum(1)], 1)
    return (tuple(pair[:, :40]), y[:40]), [morph.Batch(tuple(pair[:, 40:]), y[40:])]


def loss(outputs, batch):
    error = jnp.square(outputs - batch.y).mean(0)
    return {"first": error[0], "second": error[1]}


task = morph.Task(loss=loss, decide=jnp.sign)
closeness = morph.Metric(
    measure=lambda outputs, batch: (jnp.abs(outputs - batch.y).sum(), outputs.size),
    compute=lambda state: state[0] / state[1],
    lower=True,
)


def variables():
    (x, _), _ = data()
    return Net().init(jax.random.key(0), *x)


def nothing():
    return iter(()), []


def of_folder(data_dir):
    raise ValueError(f"no files in {data_dir}\\nsecond line")


def three():
    return 1, 2, 3


def unlabelled():
    return (data()[0][0][0],), data()[1]


number = 5
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a module, where somebody has experiments of their own."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise ValueError('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if getattr(sys.modules[name], "__file__", None) == str(tmp_path / "own.py"):
            del sys.modules[name]


NAMED = ["--model=own.py:Net", "--data=own.py:data"]
TASK = ["--loss=own.py:task", "--metrics=own.py:closeness,explained_variance"]
STEPS = ["--shrink_steps=12", "--retrain_steps=3", "--batch_size=8", "--learning_rate=0.01"]


def test_every_command_takes_a_task_of_ones_own(own, capsys):
    run = ["run", *NAMED, *TASK, *STEPS, "--workdir=out", "--start=own.py:variables"]
    run += ["--compress=prune", "--compress_steps=2"]
    run += ["--compress_batch_size=8"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "experiments", *run],
        env={"PYTHONPATH": str(ROOT), "HOME": str(own), **QUICKLY},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "against the network that was given: closeness " in done.stdout
    assert "the same predictions" in " ".join(done.stdout.split())
    found = read_run(own / "out")
    seed = found.outcomes[0]
    assert (seed["name"], seed["steps"], seed["accuracy"]) == ("seed", 0, None)
    results = json.loads((own / "out" / "results.json").read_text())
    last = results["outcomes"][-1]["metrics"]["closeness"]
    assert results["against_start"]["closeness"] == last - seed["metrics"]["closeness"]
    assert [results[name] for name in ("seed_network", "dataset")] == ["own.py:Net", "own.py:data"]
    stages = json.loads((own / "out" / "compressed.json").read_text())["stages"]
    assert stages[-1]["metrics"]["closeness"] > 0.0
    assert "closeness" in (own / "out" / "report.html").read_text()

    file = "--architecture=out/architecture.json"
    for given, asked in ((NAMED, "--loss=own.py:task"), (TASK, "--data=own.py:data")):
        with pytest.raises(SystemExit):
            retrain.main(["retrain", file, *given])
        assert f"code to run; to run it give {asked}" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compress.main(["compress", "--workdir=out", "--data=own.py:data", *TASK])
    assert "to run it give --model=own.py:Net" in capsys.readouterr().err


def options_of(define, *arguments):
    own = define()
    own(["command", *arguments])
    return own


def named(*arguments):
    options = options_of(sweep.COMMAND.define, *arguments)
    return subject.seed_of({}, options, subject.data_of(options, {}))


def test_a_network_of_the_registry_learns_ones_own_images(own):
    (own / "pictures.py").write_text(
        "import numpy as np\n"
        "def data():\n"
        "    x, y = np.zeros((8, 4, 4, 1), np.float32), np.arange(8) % 3\n"
        "    return (x, y), (x, y)\n"
    )
    network, name = named("--data=pictures.py:data", "--seed_network=cnn", "--width=0.1")
    assert name == "cnn"
    options = options_of(targets.COMMAND.define, "--data=pictures.py:data")
    data = subject.data_of(options, {})
    assert (data.num_classes, len(data.fingerprint)) == (3, 64)  # in hex
    assert isinstance(data.whole("a sweep"), Batch)
    variables = network.init(subject.jax.random.key(0), data.x)
    assert network.predict(variables, data.x).shape == (1, 3)
    assert subject.slug(data.name) == "pictures-data"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--model=own.py:Net", "--seed_network=mlp"], ConfigError, "both name the seed"),
        (["--data=own.py:data", "--dataset=digits"], ConfigError, "both name the data"),
        (["--data=own.py:data"], ConfigError, "takes images .*name a network with --model"),
        (["--model=own.py:Nett"], ImportedError, "has no 'Nett'; did you mean 'Net'"),
        (["--model=own.py:Sized"], ConfigError, "without arguments: TypeError.*'size'"),
        (["--model=own.py:number"], ConfigError, "is a int; it must name a Linen module"),
        (["--data=own.py:number"], ConfigError, r"is a int; it must be a function that returns"),
        (
            ["--data=own.py:three"],
            DataError,
            r"returns a tuple; it must be a function that returns",
        ),
        (["--data=own.py:nothing"], DataError, "to train on; it must be a function"),
        (
            ["--data=own.py:of_folder", "--data_dir=there"],
            DataError,
            "fails with ValueError: no files in there$",
        ),
    ],
)
def test_what_is_no_network_or_no_data_is_told_in_one_line(own, arguments, error, message):
    with pytest.raises(error, match=message):
        named(*arguments)


def test_names_of_losses_are_flags_and_paths_are_taken_too():
    options = flags.FlagValues()
    define_settings(options)
    options(["sweep", "--loss=own.py:loss"])
    assert options.loss == "own.py:loss"
    with pytest.raises(flags.IllegalFlagValueError, match="cross_entropy"):
        options(["sweep", "--loss=cross"])
    assert np.ndim(options.learning_rate) == 0
