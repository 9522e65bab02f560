"""Learned structure, equality, and models of latency."""

import numpy as np
from figures.said import by, each, read, row, says, share, span


@says("digits-resnet8")
def demo(told):
    found, here = by(told["outcomes"], "name"), told["measured"]
    seed, small = found["seed"], found["shrunk"]
    names = {"seed": "seed", "learned": "fine-tuned", "uniform width multiplier": "uniform"}
    for name, outcome in names.items():
        one = found[outcome]
        cells = [f"{one['steps']:,}", share(one["accuracy"], digits=1)]
        cells += [share(one[key], seed[key], 1) for key in ("flops", "parameters")]
        cells += [share(here[outcome][key], here["seed"][key]) for key in ("seconds", "bytes")]
        yield row(name, *cells)
    yield f"The run took {told['seconds']:.0f} seconds"
    yield "one image is 0.3 points"  # of 360
    yield f"differ by at most {small['logit_difference']:.1e} of the largest"
    assert small["same_predictions"]


@says("digits-resnet8", "README")
def demo_in_short(told):
    found, here = by(told["outcomes"], "name"), told["measured"]
    one, seed, uniform = found["fine-tuned"], found["seed"], found["uniform"]
    yield (
        f"{share(one['accuracy'], digits=1)} at {share(one['flops'], seed['flops'], 1)} of the "
        f"FLOPs, {share(one['parameters'], seed['parameters'], 1)} of the parameters and "
        f"{share(here['fine-tuned']['seconds'], here['seed']['seconds'])} of the time; a uniform "
        f"width multiplier {share(uniform['accuracy'], digits=1)}; the seed "
        f"{share(seed['accuracy'], digits=1)} "
    )


MODES = {
    "resnet8": {
        "Torch-Pruning 1.6.1, Group-SL as in its own scripts": "torch-pruning, group_sl",
        "**Morph, default settings**": "morph",
        "Torch-Pruning, isomorphic": "torch-pruning, isomorphic",
        "Torch-Pruning, magnitude": "torch-pruning, magnitude",
        "Torch-Pruning, Taylor": "torch-pruning, taylor",
        "uniform width multiplier": "uniform",
        "Morph's widths, trained from scratch": "morph, scratch",
    },
    "mlp": {
        "uniform width multiplier": "uniform",
        "**Morph, default settings**": "morph",
        "Morph's widths, trained from scratch": "morph, scratch",
        "Torch-Pruning, Taylor": "torch-pruning, taylor",
        "Torch-Pruning, magnitude (isomorphic: the same)": "torch-pruning, magnitude",
        "Torch-Pruning, Group-SL": "torch-pruning, group_sl",
    },
    "vit": {
        "Morph's widths, trained from scratch": "morph, scratch",
        "Torch-Pruning, magnitude": "torch-pruning, magnitude",
        "Torch-Pruning, Taylor": "torch-pruning, taylor",
        "uniform width multiplier": "uniform",
        "Torch-Pruning, Group-SL": "torch-pruning, group_sl",
        "**Morph, default settings**": "morph",
        "Torch-Pruning, isomorphic": "torch-pruning, isomorphic",
    },
}


SHARES = (0.5, 0.25)


@says("arena")
def arena(told):
    runs = by(told["test"], "row", "mode", "budget")
    found = {key: one["accuracy"] for key, one in runs.items()}
    assert told["versions"]["torch-pruning"] == "1.6.1"
    ahead, scratch = {}, {}  # of Torch-Pruning's best mode; of the multiplier
    for network, modes in MODES.items():
        yield f"the seed network {found[network, 'seed', 1.0]:.1f}: | | 50 % of the FLOPs | 25 % |"
        for name, mode in modes.items():
            form = "**{:.1f}** ({:.1f})" if mode == "morph" else "{:.1f} ({:.1f})"
            both = (runs[network, mode, budget] for budget in SHARES)
            yield row(name, *(form.format(one["accuracy"], one["spread"]) for one in both))
        others = [mode for mode in modes.values() if mode.startswith("torch")]
        ahead[network] = [
            found[network, "morph", budget] - max(found[network, mode, budget] for mode in others)
            for budget in SHARES
        ]
        uniform = found[network, "uniform", 0.25]
        scratch[network] = found[network, "morph, scratch", 0.25] - uniform
    assert min(ahead["mlp"]) > 0 > max(*ahead["resnet8"], *ahead["vit"])
    yield f"{each(ahead['mlp'])} points ahead of the best of them"
    yield f"{each(map(abs, ahead['resnet8']))} points behind it"
    yield f"and {each(map(abs, ahead['vit']))} points behind on the transformer"
    yield f"are {scratch['resnet8']:.1f} points above the multiplier at 25 % on"
    yield f"{scratch['mlp']:.1f} on the MLP and {scratch['vit']:.1f} on the transformer"
    assert np.mean(list(scratch.values())) >= 1.0
    quarter, half = found["resnet8", "morph", 0.25], found["resnet8", "uniform", 0.5]
    yield f"({quarter:.1f} against {half:.1f} %); the goal was to need 30 %"


@says("arena", "README")
def arena_in_short(told):
    found = by(told["test"], "row", "mode", "budget")
    ours, uniform, best = (
        each(found["resnet8", mode, budget]["accuracy"] for budget in SHARES)
        for mode in ("morph", "uniform", "torch-pruning, group_sl")
    )
    seed = found["resnet8", "seed", 1.0]["accuracy"]
    yield (
        f"{ours} % at 50 and 25 % of the FLOPs; a uniform width multiplier {uniform} %; the best "
        f"mode of Torch-Pruning {best} %; the seed {seed:.1f} %"
    )


def learned(told, multiplier: str):
    found = by(told["summary"], "kind", "budget")
    budgets = (0.75, 0.5, 0.25)

    def percent(key, kind, at=budgets):
        return [100 * found[kind, budget][key] for budget in at]

    yield (
        f"reach {each(percent('accuracy', 'learned'))} % (spread "
        f"{span(percent('spread', 'learned'))}) at "
        f"{each(percent('flops', 'learned'), '{:.0f}')} % of the FLOPs."
    )
    yield multiplier.format(*percent("accuracy", "uniform", at=(1.0, *budgets[-2:])))
    yield f"need {each(percent('saving', 'learned'), '{:.0f}')} % fewer FLOPs"
    cycles = found["cycles", 1.0]
    accuracy = share(cycles["accuracy"], digits=1)
    yield f"at {share(cycles['flops'])} of the seed's FLOPs, reach {accuracy}"


@says("accuracy-cifar10")
def cifar10(told):
    yield from learned(told, "reaches {1:.1f} % at 50 and {2:.1f} % at 25 %, the seed {0:.1f} %.")
    yield "and 30 % fewer FLOPs everywhere) were missed"


@says("accuracy-fashion_mnist")
def fashion_mnist(told):
    three = by(told["summary"], "kind", "budget")["uniform", 0.75]["accuracy"]
    yield from learned(
        told, f"reaches {100 * three:.1f}, {{1:.1f}} and {{2:.1f}} %, the seed {{0:.1f}} %."
    )


@says("topology")
def topology(told):
    useless, missed = (sum(len(one[key]) for one in told["rows"]) for key in ("useless", "missed"))
    yield f"{useless - missed} of the {useless} are found and removed"
    for one in told["rows"]:
        assert not one["also_removed"] + one["layers_left_of_removed"]
        assert len(one["missed"]) == (one["network"] == "resnet")


def landed(rows, form: str = "{:.1f}") -> str:
    return span((100 * one["landed"] for one in rows), form)


@says("budgets")
def budgets(told):
    """Together with what the cost `here` says, which is in a file of its own."""
    rows = [one for one in told["rows"] if one["landed"] != ""]  # empty: refused
    peak = [one for one in rows if one["cost"] == "activation_peak"]
    others = [one for one in rows if one not in peak] + read("budgets-here")["rows"]
    yield f"{len(others)} of {len(others)} networks cost {landed(others)} % of the budget."
    yield f"takes up to {share(max(one['step'] for one in peak))}, they cost {landed(peak)} %;"
    refused = [one for one in told["rows"] if one["landed"] == ""]
    assert [one["budget"] for one in refused] == [0.1] * 4
    yield from ("the four budgets of 10 % cannot be met", "Budgets of 75, 50, 25 and 10 % in")


@says("budgets-edge_tpu")
def budgets_edge_tpu(told):
    met = [one for one in told["rows"] if one["landed"] > 0.99]
    rest = [one for one in told["rows"] if one not in met]
    yield f"{len(met)} of {len(told['rows'])} cost {landed(met)} %"
    yield f"and the others {landed(rest, '{:.0f}')} %"
    yield f"cost {span((100 * one['step'] for one in rest), '{:.0f}')} % of the budget more"


@says("targets")
def targets(told):
    seed, *rest = told["networks"]
    over = {
        (one["name"], cost): one["costs"][cost] / seed["costs"][cost]
        for one in rest
        for cost in told["units"]
    }
    assert all(share(ratio) == "50 %" for (name, cost), ratio in over.items() if name == cost)
    others = [ratio for (name, cost), ratio in over.items() if name != cost]
    yield "Each of the four networks costs 50 % in"
    yield f"the other three cost {share(min(others))} or more"
    first, second, *_ = sorted(one["seconds"] / seed["seconds"] for one in rest)
    found = by(rest, "name")
    assert found["here"]["seconds"] == min(one["seconds"] for one in rest)
    yield f"({share(first)} of the seed's time; the next one takes {share(second)})"
    accuracies = [100 * one["accuracy"] for one in rest]
    yield f"Accuracies are {span(accuracies)} %, the seed's is {share(seed['accuracy'], digits=1)}"
    yield f"takes {share(found['flops']['seconds'], seed['seconds'])} of the seed's time on this"


@says("targets", "README")
def targets_in_short(told):
    found = by(told["networks"], "name")
    seed = found["seed"]["seconds"]
    yield f"takes {share(found['flops']['seconds'], seed)} of the seed's time on this machine"
    yield f"learned for latency here takes {share(found['here']['seconds'], seed)}"


@says("zoo")
def zoo(told):
    totals = told["totals"]
    assert (totals["passed"], totals["failed"]) == (totals["models"], [])
    yield f"{totals['models']} models of other packages"
    yield f"agree within {totals['largest_difference']:.1e}, and so do the gradients of"
    yield f"of {totals['with_gradients']}. Halving"
    yield f"leaves {share(totals['median_left'], digits=1)}"


@says("zoo", "README")
def zoo_in_short(told):
    yield f"[{told['totals']['models']} models of other packages]"
    yield f"within {told['totals']['largest_difference']:.1e} |"


@says("zoo_exports")
def zoo_exports(told):
    totals = told["totals"]
    assert (totals["holds"], totals["wrong"]) == (True, [])
    assert totals["stablehlo, dense and half"] == totals["models"]
    yield f"{totals['models']} models of ten packages"
    yield f"{totals['onnx, dense and half']} of them export to ONNX, all to StableHLO"
    yield f"largest difference is {totals['largest_difference']:.1e} of the largest output"
    yield f"{totals['batch']['any']} of {sum(totals['batch'].values())} files take any batch size"


@says("beside")
def beside(told):
    """Every outcome is in a row."""
    kinds = (
        ("any",),
        ("fixed",),
        ("refused", "crashed"),
        ("wrong", "does not load", "does not run"),
    )
    leads = {
        "models": ("right at two batch sizes", "right at the one", "refused, or", "written, and"),
        "lines": ("right at two batch sizes", "right at one", "refused, or", "wrong, or"),
    }
    for what, name in (("models", "models"), ("lines", "functions")):
        totals = told["totals"][what]
        count = sum(totals["morph"].values())
        assert {who: sum(own.values()) for who, own in totals.items()} == dict.fromkeys(
            totals, count
        )
        yield f"of {count} {name}, {leads[what][0]}"
        for some in kinds:
            cells = [
                sum(totals[who].get(kind, 0) for kind in some) for who in ("morph", "jax2onnx")
            ]
            yield f" | {cells[0]} | {cells[1]} |"


@says("edge_tpu")
def edge_tpu(told):
    one, other = (told["accuracy"][of]["trusted"]["left_out"] for of in ("edge_tpu", "log_macs"))
    yield f"latency of {one['rows']} published networks"
    yield (
        f"The median error is {share(one['median_error'], digits=1)}, the mean error "
        f"{share(one['mean_error'], digits=1)}, and Spearman's rank correlation "
        f"{one['spearman']:.3f}; a prediction from multiply-adds has "
        f"{share(other['median_error'])}, {share(other['mean_error'])} and {other['spearman']:.2f}."
    )
    doubtful = [one for one in told["networks"] if not one["trusted"]]
    worst = sorted((abs(one["left_out_error"]) for one in doubtful), reverse=True)
    yield f"are off by {share(worst[0])} and {share(worst[1])}"


@says("latency")
def latency(told):
    assert len(told["rows"]) == 48
    yield f"The median error is {share(told['median_absolute_error'], digits=1)} and"
    yield f"correlation {told['spearman']:.3f}, on a virtual"
    yield f"measurements spread by {share(told['spread'])}"
