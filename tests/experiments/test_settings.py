"""Every setting at every entry: changing it changes the result, or it is refused with the reason.

A new field of `CycleConfig` needs a row in `ROWS`; an entry that has no use for it needs one in
`morph.cycle.unused`.
"""

import itertools
import json
import pickle
import shutil
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property, partial
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from absl import flags

import morph
import regularizers as reg
from experiments import datasets, retrain, study, subject, sweep, targets
from experiments.console.flags import config_of, define_settings
from morph.budget.traces import Traces
from morph.cycle import cycle, store
from morph.cycle.config import CycleConfig
from morph.cycle.context import Context
from morph.cycle.sweep import Sweep
from morph.cycle.unused import UNUSED_BY_RETRAIN, UNUSED_BY_SWEEP, UNUSED_BY_TARGETS
from morph.training.data import Batch
from regularizers.errors import MorphError


@dataclass(frozen=True)
class Row:
    """A setting's other value, and what else must hold for it to matter."""

    value: Any
    given: dict[str, Any] = field(default_factory=dict)
    regression: bool = False  # labels are numbers


# Rows that need the same share a run, so that few of these are more than the base.
AGAIN = {"cycles": 2, "budget": 1.0, "shrink_to": 0.6, "distill": 0.5}
TENSORIZED = {"tensorize": "svd", "tensorize_steps": 2}
LOOKED_AT = {"shrink_steps": 10}  # the controller decides on the way
ERRORS = {"loss": "mean_squared_error", "metrics": "explained_variance"}

ROWS = {
    "target": Row("size"),
    "budget": Row(0.7),
    "shrink_to": Row(0.5),
    "expand": Row("scratch", AGAIN),
    "final": Row("scratch"),
    "patience": Row(1, AGAIN),
    "cycles": Row(3, AGAIN),
    "seed_steps": Row(3),
    "shrink_steps": Row(5),
    "retrain_steps": Row(3),
    "settle": Row(0.0),
    "penalty": Row("gates"),
    "strengths": Row("Dense_1=1e-4", {**LOOKED_AT, "budget": 0.1}),
    "gate_mode": Row("straight_through", {"penalty": "gates"}),
    "batch_size": Row(5),
    "learning_rate": Row(0.02),
    "shrink_learning_rate": Row(0.02, {"schedule": "phase"}),
    "weight_decay": Row(0.1),
    "loss": Row("mean_absolute_error", ERRORS, regression=True),
    "label_smoothing": Row(0.2),
    "metrics": Row("log_likelihood"),
    "optimizer": Row("adam"),
    "schedule": Row("phase"),
    "warmup_steps": Row(1),
    "clip_norm": Row(0.01),
    "ema_decay": Row(0.9),
    "precision": Row("bfloat16"),
    "augment": Row("flip"),
    "mixup": Row(1.0),
    "distill": Row(0.5),
    "distill_by": Row("responses", AGAIN),
    "distill_temperature": Row(5.0, AGAIN),
    "blocks": Row(False, {**LOOKED_AT, "budget": 0.1}),
    "min_width": Row(8),
    "floors": Row("Dense_0=10"),
    "round_to": Row(3),
    "tensorize": Row("svd"),
    "tensorize_budget": Row(0.4, TENSORIZED),
    "tensorize_steps": Row(3, TENSORIZED),
    "baselines": Row("uniform"),
    "seed": Row(1),
}
LOOK_EVERY = 2  # steps
STEPS = {"seed_steps": 2, "shrink_steps": 4, "retrain_steps": 2}
BUDGETS = {"budget": 0.6, "tensorize_budget": 0.5}
PULLED = {"penalty": "group_lasso", "learning_rate": 0.05, "blocks": True}
BASE = {**STEPS, **BUDGETS, **PULLED, "batch_size": 8}
UNUSED = {
    "run": {},
    "sweep": UNUSED_BY_SWEEP,
    "targets": UNUSED_BY_TARGETS,
    "retrain": UNUSED_BY_RETRAIN,
}


class Net(nn.Module):
    """A branch that can go."""

    @nn.compact
    def __call__(self, x, train=False):
        del train
        x = nn.relu(nn.Dense(12)(x.reshape(x.shape[0], -1)))
        y = nn.relu(nn.Dense(11)(x))
        x += nn.Dense(12)(y)
        return nn.Dense(3)(x)


def tiny_data(regression):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2, 3, 1)).astype(np.float32), rng.integers(0, 3, 40)
    y = np.eye(3, dtype=np.float32)[y] if regression else y.astype(np.int32)
    sets = {"train_images": x[:24], "train_labels": y[:24]}
    sets |= {"test_images": x[24:], "test_labels": y[24:]}
    told = {"mean": (0.0,), "std": (1.0,), "fingerprint": "tiny"}
    return datasets.Dataset(name="digits", num_classes=3, **sets, **told)


class Changed(BaseException):
    """A run has left other variables than the one before: how it ends need not be known."""


def watching(world):
    """In place of Orbax, which would take most of the time; every network is noted in `world`."""

    def note(name, variables):
        world.saved.append(
            (name, [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(variables)])
        )
        if world.before and world.before[: len(world.saved)] != world.saved:
            raise Changed

    def save(path, variables):
        path.mkdir(parents=True, exist_ok=True)
        (path / "variables").write_bytes(pickle.dumps(jax.device_get(variables)))
        note(str(path.relative_to(world.workdir)), variables)

    class Checkpoints:
        """A run that does not die reads none; between phases they hold its network."""

        def __init__(self, workdir):
            pass

        def save(self, arrays, progress):
            if not progress["step"]:
                note(f"phase {progress['phase']}", arrays)

        def wait(self):
            pass

        def close(self):
            pass

    return save, Checkpoints


def load(path, like=None):
    return pickle.loads((path / "variables").read_bytes())


def told_apart(architecture):
    """What makes a network another one."""
    return json.dumps(replace(architecture, report={}).to_json())


class Shared(morph.Network):
    """A seed network for all runs: those that come to the same widths trace them once."""

    @cached_property
    def known(self):
        return {}

    def resized(self, architecture):
        key = told_apart(architecture)
        if key not in self.known:
            self.known[key] = super().resized(architecture)
        return self.known[key]


def drawn_once(drawn):
    """Runs whose keys and widths are equal start from equal numbers: they are drawn once."""
    known: dict[Any, Any] = {}

    def remembered(self, architecture, number):
        key = told_apart(architecture), self.config.seed, number
        if key not in known:
            known[key] = jax.device_get(drawn(self, architecture, number))
        return jax.device_put(known[key])

    return remembered


def traced_once(made):
    """Traces of the one seed network, which all runs share: no setting has a part in them."""
    of_seed = Traces.of_seed

    def traced(network, key, x):
        assert network is made.network
        if made.traces is None:
            made.traces = of_seed(network, key, x)
        return made.traces

    return traced


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world: a tiny network for every name, and no pictures."""
    made = SimpleNamespace(known={}, numbers=itertools.count(), regression=False, traces=None)
    made.network = Shared(**vars(morph.linen_network(Net())))
    save, checkpoints = watching(made)
    made.folder = tmp_path_factory.mktemp("settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "network_for", lambda *named: made.network)
        for module in (sweep, targets):
            patch.setattr(module, "Sweep", partial(Sweep, look_every=LOOK_EVERY))
        for module in (study, targets, retrain, store):
            patch.setattr(module, "load_variables", load)
            patch.setattr(module, "save_variables", save)
        patch.setattr(datasets, "load", lambda *named: tiny_data(made.regression))
        patch.setattr(cycle, "Checkpoints", checkpoints)
        patch.setattr(Context, "drawn", drawn_once(Context.drawn))
        patch.setattr(Traces, "of_seed", traced_once(made))
        patch.setattr(sweep, "write_report", lambda workdir: workdir)
        patch.setattr(retrain, "write_report", lambda workdir: workdir)
        patch.setattr(sweep.pictures, "plot_tradeoff", lambda *args, **kwargs: None)
        patch.setattr(targets, "compiled", lambda *args: None)
        patch.setattr(targets, "interleaved", lambda runs, seconds: np.ones((len(runs), 1)))
        made.architecture = made.folder / "architecture.json"
        graph = reg.trace_channels(Net().apply, variables_of(), tiny_data(False).train_images[:1])
        small = morph.shrink(graph, {"Dense_1": np.arange(11) < 5})
        small.save(made.architecture)
        yield made


@cache
def variables_of():
    return jax.jit(Net().init)(jax.random.key(0), tiny_data(False).train_images[:1])


def typed(settings):
    return [f"--{name}={value}" for name, value in settings.items()]


def run_cycle(world, workdir, settings):
    own = flags.FlagValues()
    define_settings(own)
    own(["run", *typed(settings)])
    data = datasets.load("digits")
    result = morph.Cycle(
        network=world.network,
        train=Batch(data.train_images, data.train_labels),
        test=Batch(data.test_images, data.test_labels),
        config=config_of(own),
        workdir=workdir,
        look_every=LOOK_EVERY,
    ).run()
    report = {**result.architecture.report, "config": None}
    (workdir / "results.json").write_text(json.dumps({"outcomes": report}))


def run_sweep(world, workdir, settings):
    arguments = [f"--budgets={world.budget}", f"--workdir={workdir}", "--seed_network=mlp"]
    sweep.main(["sweep", *arguments, *typed(settings)])


def run_targets(world, workdir, settings):
    """What reaches the sweeps that train; `run_sweep` sees what they make of it."""
    seen = []

    def watched(self, *args):
        kept, trained = self.config, self.tested(self.whole, variables_of())
        seen.append(str([asdict(kept), args[:1]]))
        return [trained]

    arguments = ["--targets=flops", f"--workdir={workdir}", "--dataset=digits"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweep, "train_seeds", watched)
        patch.setattr(Sweep, "shrink", watched)
        targets.main(["targets", *arguments, "--seed_network=mlp", *typed(settings)])
    (workdir / "results.json").write_text(json.dumps({"outcomes": seen}))


def run_retrain(world, workdir, settings):
    arguments = [f"--architecture={workdir.parent / 'architecture.json'}", f"--workdir={workdir}"]
    arguments += ["--dataset=digits", "--seed_network=mlp"]
    retrain.main(["retrain", *arguments, *typed(settings)])


ENTRIES = {
    "run": run_cycle, "sweep": run_sweep, "targets": run_targets, "retrain": run_retrain,
}  # fmt: skip


def run(world, entry, settings, regression, before=()):
    """What an entry tells, and all variables that it saves, in order.

    Args:
        world: what it runs in.
        entry: its name.
        settings: of the run.
        regression: whether labels are numbers.
        before: variables that another run saved; the first that are others raise `Changed`.
    """
    world.regression, world.before, world.saved = regression, before, []
    world.workdir = world.folder / f"run-{next(world.numbers)}"
    try:
        ENTRIES[entry](world, world.workdir, settings)
        told = json.loads((world.workdir / "results.json").read_text())
    finally:
        shutil.rmtree(world.workdir, ignore_errors=True)
    assert world.saved
    return json.dumps(told["outcomes"]), world.saved


def result_of(world, entry, settings, regression):
    """What a run to its end leaves; each is computed once."""
    key = entry, world.budget, tuple(sorted(settings.items())), regression
    if key not in world.known:
        world.known[key] = run(world, entry, settings, regression)
    return world.known[key]


def changes(world, entry, settings, value, regression):
    """Whether other settings leave other variables, or tell of other outcomes."""
    before = result_of(world, entry, settings, regression)
    try:
        return run(world, entry, {**settings, **value}, regression, before[1]) != before
    except Changed:
        return True


def test_every_setting_has_a_row_and_every_row_is_a_setting():
    names = {setting.name for setting in fields(CycleConfig)}
    assert set(ROWS) == names
    for name, row in ROWS.items():
        assert {**asdict(CycleConfig()), **BASE, **row.given}[name] != row.value


ALONE = (("sweep", "gates"), ("targets", "gates"))  # refused for a value, not for the setting
CASES = [(entry, name) for entry in ENTRIES for name in ROWS]


@pytest.mark.parametrize(("entry", "name"), CASES)
def test_a_setting_changes_the_result_or_is_refused(world, capsys, entry, name):
    row, unused = ROWS[name], UNUSED[entry]
    given = {**BASE, **row.given}
    world.budget = given["budget"]  # of a sweep, which has an argument for it
    given = {n: value for n, value in given.items() if n not in unused}
    if (entry, row.value) in ALONE:
        with pytest.raises(SystemExit):
            ENTRIES[entry](world, world.folder / "refused", {**given, name: row.value})
        assert "penalty is 'gates', but runs side by side" in capsys.readouterr().err
        return
    if name in unused:
        with pytest.raises(SystemExit) as stop:
            ENTRIES[entry](world, world.folder / "refused", {**given, name: row.value})
        assert stop.value.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {name} is {row.value!r}, but has no effect here: ")
        assert not (world.folder / "refused").exists()
        return
    assert changes(world, entry, given, {name: row.value}, row.regression)


MISSED = {
    "penalty": "Dens_0=gamma,*=group_lasso",
    "strengths": "Dens_0=0.1",
    "floors": "Dens_0=3",
    "tensorize": "Dens_0=svd",
}


PATTERNS = [(entry, name) for entry in ENTRIES for name in MISSED if name not in UNUSED[entry]]


@pytest.mark.parametrize(("entry", "name"), PATTERNS)
def test_a_pattern_that_matches_nothing_is_refused_before_any_training(world, capsys, entry, name):
    given = {n: value for n, value in BASE.items() if n not in UNUSED[entry]}
    world.budget = BASE["budget"]
    with pytest.raises((SystemExit, MorphError)) as stop:
        ENTRIES[entry](world, world.folder / "refused", {**given, name: MISSED[name]})
    said = f"{stop.value}{capsys.readouterr().err}"
    assert f"{name}: " in said or f"{name}=" in said
    assert "'Dens_0' matches no" in said
    assert "did you mean 'Dense_0'" in said
    assert not (world.folder / "refused").exists()
