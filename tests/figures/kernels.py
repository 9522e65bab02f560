"""Real networks, tensor networks, compression and export."""

from figures.said import by, each, read, row, says, share, span


@says("prune_smollm2")
def smollm2(told):
    found = by(told["rows"], "budget")
    yield f"With 90 % of the parameters the perplexity is {found[0.9]['times']:.2f} times the"
    yield "(the goal, 1.15, was missed)"
    yield f"with 80 % it is {found[0.8]['times']:.2f} times (the goal)"


@says("prune_smollm2", "real_networks")
def smollm2_in_full(told):
    whole, small, large = told["rows"]
    yield f"{whole['parameters'] / 1e6:.1f} million parameters"
    yield f"nothing else reads, is {whole['perplexity']:.1f}."
    yield row("100.0 %", f"{whole['perplexity']:.1f}", "1", "").replace("  ", " ")
    for one in (large, small):
        seconds = f"{one['prune_cpu_s']:.0f} + {one['refit_cpu_s']:.0f}"
        left = share(one["parameters"], whole["parameters"], 1)
        yield row(left, f"{one['perplexity']:.1f}", f"{one['times']:.2f}", seconds)
    yield f"{told['examples']} pieces of other fortunes"
    yield f"{told['refit']} more join them"
    yield f"{told['held_out']} pieces are measured on. The goals were 1.15 times"
    yield "at 90 %, which was missed, and 1.6 times at 80 %"
    for budget, one in zip(("100 %", "90 %", "80 %"), (whole, large, small), strict=True):
        text = " ".join(one["says"].split()).replace("<", "&lt;").replace("|", r"\|")
        yield row(budget, text)


@says("distill_smollm2")
def smollm2_distilled(told):
    (only,) = told["rows"]
    yield f"at {share(only['budget'])} of its parameters, taught by itself"
    yield f"{only['distill_cpu_s'] / 60:.1f} minutes of CPU bring the perplexity"
    yield f"from {only['times_before']:.2f} times the original's to {only['times']:.2f} times"
    assert only["times"] <= 1.2
    assert only["distill_cpu_s"] <= 3600
    yield "(the goal was 1.2 after 60 minutes)"


@says("distill_smollm2", "real_networks")
def smollm2_distilled_in_full(told):
    (only,) = told["rows"]
    yield f"At {share(only['budget'])} of the parameters, the original teaches"
    yield f"{told['batch'][1]}-token pieces of fortunes, {told['batch'][0]} at a time"
    for point in only["curve"]:
        minutes, times = point["cpu_s"] / 60, point["held_out"]
        yield row(str(point["step"]), f"{minutes:.1f}", f"{times:.2f}")
    yield "1.2 times at 80 % after at most 60 minutes of CPU, was met"


@says("distill_minilm")
def minilm_distilled(told):
    whole, _, small = told["rows"]
    yield f"After {told['distill_cpu_s'] / 60:.1f} minutes of CPU words"
    ranks = [one["sense_to_word"]["mrr"] for one in (small, whole)]
    yield f"(mean reciprocal rank {ranks[0]:.3f}, the original's {ranks[1]:.3f})"
    yield f"it is {told['onnxruntime']['batch 1']['speedup']:.2f} times as fast"
    yield f"embeddings are {small['cosine_senses']:.3f} of senses"
    yield f"{small['cosine_sentences']:.3f} of other sentences (the goal, 0.95, was missed there)"


@says("distill_minilm", "real_networks")
def minilm_distilled_in_full(told):
    rows, time = told["rows"], told["onnxruntime"]
    yield f"for {told['distill_cpu_s'] / 60:.1f} minutes of CPU"
    yield f"on {told['sentences']:,} senses and words"
    yield f"{told['test']['words']:,} words of the dictionary"
    yield f"{told['test']['sentences']:,} sentences of the fortunes kept apart"
    yield row("parameters, millions", *(f"{one['parameters'] / 1e6:.1f}" for one in rows))
    for way, name in (("sense_to_word", "word of a sense"), ("word_to_sense", "sense of a word")):
        ranks, firsts = zip(*(one[way].values() for one in rows), strict=True)
        yield row(f"{name}: mean reciprocal rank", *map("{:.3f}".format, ranks))
        yield row(f"{name}: among the first 10", *(share(one, 1, 1) for one in firsts))
    for what in ("senses", "words", "sentences"):
        cosines = (f"{one[f'cosine_{what}']:.3f}" for one in rows)
        yield row(f"cosine to the original's, {what}", *cosines)
    yield row("file, MB", *(f"{one['megabytes']:.0f}" for one in rows))
    for name, batch in (("1 sentence", "batch 1"), ("32 sentences", "batch 32")):
        milliseconds = map("{:.1f}".format, time[batch]["cpu_milliseconds"].values())
        yield row(name, *milliseconds, f"{time[batch]['speedup']:.2f}")
    yield "goals were 1.7 times as fast"
    assert min(rows[2]["cosine_senses"], rows[2]["cosine_words"]) > 0.95
    yield "for senses and words, a cosine of 0.95, which were met"
    yield f"have {rows[2]['cosine_sentences']:.3f}: the same goal, missed"
    yield "the files were less than 1.7 times as fast"


@says("llama_scale")
def llama_scale(told):
    seconds = each(one["trace_s"] for one in told["rows"])
    memory = each((one["memory_gb"] for one in told["rows"]), "{:.2f}")
    yield f"cut to {share(told['budget'])} and checked"
    yield f"The trace takes {seconds} s of one core, and {memory} GB are enough"


@says("llama_scale", "real_networks")
def llama_scale_in_full(told):
    rows = told["rows"]
    steps = {
        "trace: infer all widths": "trace_s",
        "price: FLOPs, H100, TPU v5e, activations": "price_s",
        "choose widths at 75 %": "trim_s",
        "the architecture": "shrink_s",
        "slice the variables, abstractly": "take_s",
        "the small network, checked by `eval_shape`": "compact_s",
    }
    for name, key in steps.items():
        yield row(name, *(f"{one[key]:.1f}" for one in rows))
    yield row("memory of all of it", *(f"{one['memory_gb']:.2f} GB" for one in rows))
    billions = [one["parameters"] / 1e9 for one in rows]
    lefts = [one["left"] * whole for one, whole in zip(rows, billions, strict=True)]
    both = zip(billions, lefts, strict=True)
    yield row("parameters", *(f"{whole:.2f} and {left:.2f} billion" for whole, left in both))
    yield row(f"FLOPs for {told['length']} tokens", *(share(one["flops_left"]) for one in rows))
    for name, key in {"an H100": "H100", "a TPU v5e": "TPUv5e"}.items():
        yield row(f"time on {name}, roofline", *(share(one[f"latency_{key}_left"]) for one in rows))
    each_device = [(one["gb_per_device"], one["gb_per_device_left"]) for one in rows]
    cells = [f"{whole:.2f} and {left:.2f} GB" for whole, left in each_device]
    yield row("bfloat16 weights on each of 64 devices", *cells)
    yield f"to {share(told['budget'])} of the parameters"


@says("prune_pretrained")
def prune_pretrained(told):
    rows = {row["network"]: row for row in told["rows"]}
    test = {name: share(row["test"], digits=2) for name, row in rows.items()}
    steps = rows["50%, trained"]["training_steps"]
    yield (
        f"Its test accuracy is {test['as it is']}. Pruned and refit without training it is "
        f"{test['70%, refit']} at 70 % of the FLOPs, {test['50%, refit']} at 50 % and "
        f"{test['25%, refit']} at 25 % (only cut: {test['70%, cut']}, {test['50%, cut']} and "
        f"{test['25%, cut']}); at 50 %, after {steps} steps, it is {test['50%, trained']}."
    )


@says("tensorize_pretrained")
def tensorize_pretrained(told):
    studies = {name: study["rows"] for name, study in told["studies"].items()}
    cosine = [f"{one['mean_cosine']:.3f}" for one in studies["minilm"]]
    yield f"SVD reaches {cosine[0]} without data, and {cosine[1]} fitted"
    yield f"MPO {cosine[2]} and {cosine[3]}."
    dense, blind, seen = (one["top5"] for one in studies["mobilenet"])
    yield "The 1x1 convolutions by SVD at 25 % fewer FLOPs"
    yield f"for {blind} of 20 pictures without data, and for {seen} with data ({dense} before)"
    mnist = by(studies["mnist"], "plan")
    yield f"MNIST CNN ({mnist['dense']['accuracy']:.2f} %)"
    plans = {
        "EVBMF ranks": "EVBMF ranks, first and last layer dense",
        "a budget of 25 % of the FLOPs": "25 % of FLOPs",
        "a budget of 25 % of the parameters": "25 % of parameters",
    }
    for name, plan in plans.items():
        one = mnist[plan]
        cells = [share(one["of_flops"]), share(one["of_parameters"])]
        cells += [
            f"{one[key]:.2f} %" for key in ("accuracy_without_data", "accuracy_after_an_epoch")
        ]
        yield row(name, *cells, share(one["time_factorized_1"]))
    yield f"destroy the network ({mnist['EVBMF ranks']['accuracy_after_an_epoch']:.2f} %)"


@says("tensorize_resnet50")
def tensorize_resnet50(told):
    first, second = (one["seconds"] for one in told["rows"])
    yield f"takes {first:.1f} s with random weights, and {second:.1f} s with kernels of low rank"


@says("tensorize_shrink")
def tensorize_shrink(told):
    found = by(told["rows"], "method", "share")
    for name, method in {"shrunk": "shrink", "tensorized": "tensorize", "both": "both"}.items():
        cells = []
        for at in (0.3, 0.15):
            one = found[method, at]
            cells += [share(one["accuracy"], digits=1)]
            cells += [share(one["parameters"], one["seed_parameters"], 1)]
        yield row(name, *cells)
    yield "accuracy at 30 % of the FLOPs | parameters | accuracy at 15 %"


@says("tensorize_mlp")
def tensorize_mlp(told):
    rows = [one for one in told["rows"] if one["layer"] == "tt"]
    dense = next(one for one in told["rows"] if one["layer"] == "dense")
    solved = sum(one["train_mse"] < told["goal_mse"] for one in rows)
    yield f"below {told['goal_mse']:.0e} in {solved} of {len(rows)} runs"
    yield f"with {rows[0]['parameters']:,} parameters instead of {dense['parameters']:,}"


@says("tensorize_fashion")
def tensorize_fashion(told):
    found = by(told["rows"], "hidden", "layer")
    one, dense = found[512, "K = 1"], found[512, "dense"]
    yield f"{one['layer_parameters']:,} parameters instead of {dense['layer_parameters']:,}"
    yield f"The error is {one['points_less']:.2f} points larger"
    yield f"and {found[0, 'K = 1']['points_less']:.2f} points if the logits follow"


@says("tensorize_gpt")
def tensorize_gpt(told):
    dense, mpo = told["rows"]
    yield f"{mpo['parameters']:,} parameters instead of {dense['parameters']:,}"
    yield f"({told['fewer_parameters']:.1f} times fewer)"
    accuracies = [share(one["token_accuracy"], digits=1) for one in (mpo, dense)]
    yield f"a token accuracy of {accuracies[0]} instead of {accuracies[1]}"


@says("against_tltorch")
def against_tltorch(told):
    for one in told["rows"]:
        times = (f"{one[f'{whose}_over_dense']:.2f}" for whose in ("ours", "theirs"))
        yield row(str(one["batch"]), *times)


@says("tensorize_speed")
def tensorize_speed(told):
    yield f"at most {told['worst']:.2f} times as long as the best of the three in all of"
    yield f"all of {len(told['rows'])} rows; an MPO of 4,096 x 4,096"
    ratio = [one["dense_over_auto"] for one in told["rows"] if "4096" in one["layer"]]
    yield f"is {ratio[0]:.1f} times faster than dense at batch 1, and {ratio[-1]:.2f} times"


@says("compression_speed")
def compression_speed(told):
    rates = [
        one["mb_per_s"] for one in told["rows"] if "mb_per_s" in one and "plain" not in one["what"]
    ]
    yield f"32 values takes {told['rows'][0]['seconds']:.1f} s"
    yield f"are decoded at {span(rates, '{:.0f}')} MB"


@says("exports")
def exports(told):
    rows = told["rows"]
    whole = [one for one in rows if one["target"] in ("onnx", "stablehlo")]
    yield f"within {max(one['logit_difference'] for one in whole):.1e} of the largest one"
    many = {one["network"] for one in rows if one["test_images"] >= 10_000}
    assert sorted(many) == ["inception", "mnist_cnn", "resnet8"]
    for target, name in (("onnx_int8", "ONNX int8"), ("tflite", "int8 TFLite")):
        files = [one for one in rows if one["target"] == target and one["network"] in many]
        lost = max(one["points_lost"] for one in files)
        sizes = span((one["bytes_of_onnx"] for one in files), "{:.2f}")
        yield f"{name} loses at most {lost:.2f} points and takes {sizes} of the bytes"
        (few,) = (one for one in rows if one["target"] == target and one["network"] not in many)
        yield share(few["same_class_of_views"], digits=1)
        yield f"{few['norm_difference_of_views']:.2f} of their norm"
        yield f"{few['points_lost'] / 5:.0f} of the 20 pictures"
    yield "the goals were 1 point and 0.30"


@says("exports", "export")
def exports_in_full(told):
    for one in told["rows"]:
        agreement = one["agreement"]
        accuracies = [
            share(of["1"], digits=1)
            if len(of) == 1
            else f"top-1 {share(of['1'], digits=1)}, top-5 {share(of['5'], digits=1)}"
            for of in (agreement["accuracy"], agreement["reference_accuracy"])
        ]
        yield row(
            f"{one['network']}, {one['size']}",
            one["target"],
            f"{one['bytes']:,}",
            str(one["batch"]),
            f"{one['logit_difference']:.1e}",
            share(one["same_class"], digits=1),
            *accuracies,
        )
    predicted = [
        float(one["details"]["figures"]["Edge TPU"].split()[0])
        for one in told["rows"]
        if one["target"] == "tflite"
    ]
    yield f"{span(predicted, '{:.2f}')} ms (Coral published 2.6 ms for MobileNetV2)"


@says("pruning")
def pruning(told):
    found = by(told["summary"], "network", "kind")
    kinds = ("float", "longer", "12x", "16x", "20x", "25x", "40x")
    for name, network in {"LeNet-300-100": "mlp", "LeNet-5": "lenet5"}.items():
        errors = [found.get((network, kind)) for kind in kinds]
        cells = [f"{one['error_percent']:.2f}" if one else "" for one in errors]
        yield " ".join(row(name, *cells).split())
    assert found["mlp", "longer"]["steps"] == found["mlp", "12x"]["steps"]


@says("pruning", "pruning")
def pruning_in_full(told):
    found = by(told["summary"], "network", "kind")
    for one in told["summary"]:
        name = {"float": "all", "longer": "all, trained longer"}.get(one["kind"])
        error = f"{one['error_percent']:.2f} ({one['lowest']:.2f} to {one['highest']:.2f})"
        yield row(name or f"{one['kind']} fewer", error, f"{one['steps']:,}")
    for network, share_of in told["paper"].items():
        runs = [
            one["layers"]
            for one in told["rows"]
            if (one["network"], one["kind"]) == (network, "12x")
        ]
        for layer, kept in share_of.items():
            own = [run[layer] for run in runs] if layer != "all" else [100 / 12]
            yield f"| {sum(own) / len(own):.1f} | {100 * kept:.0f} |"
        better = found[network, "12x"]["error_percent"] - found[network, "longer"]["error_percent"]
        yield f"as long is better by {better:.2f} points"
    yield from ("from 1.64 to 1.59 %", "from 0.80 to 0.77 %")  # the paper's


@says("deep_compression")
def deep_compression(told):
    found = by(told["summary"], "network")
    names = {"LeNet-300-100": found["mlp"], "LeNet-5": found["lenet5"]}
    fewer = read("deep_compression-lenet5-12x")["summary"][0]
    for name, one in {**names, "LeNet-5, 12 times fewer weights": fewer}.items():
        errors = [f"{one[key]:.2f} %" for key in ("float_error_percent", "error_percent")]
        yield row(name, *errors, f"{one['bytes']:,.0f}", f"{one['rate']:.1f}")
    rows = [one for one in told["rows"] if one["network"] == "mlp"]
    kb = {
        kind: sum(one[f"{kind}_bytes"] for one in rows) / len(rows) / 1e3
        for kind in ("entropy", "huffman", "ans", "zstd_codes")
    }
    yield f"the entropy is {kb['entropy']:.1f} kB"
    yield f"Huffman codes alone take {kb['huffman']:.1f} kB and ANS alone {kb['ans']:.1f} kB"
    yield f"zstandard of the codes takes {kb['zstd_codes']:.1f} kB"


@says("deep_compression", "README")
def deep_compression_in_short(told):
    one = by(told["summary"], "network")["mlp"]
    assert f"{one['error_percent']:.2f}" == f"{one['float_error_percent']:.2f}"
    yield f"{one['rate']:.1f} times smaller on disk; error {one['error_percent']:.2f} % before and"


@says("ternary-width1")
def ternary(told):
    """Together with the narrow networks, which are in a file of their own."""
    names = ("float", "ternary, first and last layer float", "all ternary")
    pairs = zip(names, told["rows"], read("ternary")["rows"], strict=True)
    for name, whole, half in pairs:
        yield row(name, f"{whole['error']:.2f} %", f"{half['error']:.2f} %")
    assert told["rows"][1]["points_more"] < 0.7
    yield "was to lose at most 0.7 points"


@says("ternary-width1", "quantization")
def ternary_in_full(told):
    names = ("float", "ternary, first and last layer float", "all ternary")
    for name, one in zip(names, told["rows"], strict=True):
        errors = one["errors"].values()
        bits = f"{one['bits']:.1f}".removesuffix(".0")
        yield row(name, bits, f"{one['error']:.2f} ({span(errors, '{:.2f}')})")


@says("fixed_point")
def fixed_point(told):
    losses = [
        one.get("points_lost", 18 - one.get("top1", 18))
        for study in told["studies"].values()
        for one in study["rows"]
        if (one["bits"], one.get("precision")) == (8, "dynamic, closest")
    ]
    assert len(losses) == 3
    assert max(losses) <= 0
    yield "At 8 bits `closest` loses no accuracy on any of them"


@says("fixed_point", "quantization")
def fixed_point_in_full(told):
    found = {
        name: {(one["bits"], one.get("precision")): one for one in study["rows"]}
        for name, study in told["studies"].items()
    }
    kinds = {"the paper's search": "dynamic", "`closest`": "dynamic, closest", "static": "static"}

    def cells(*at):
        for name in ("mnist", "fashion"):
            yield f"{found[name][at]['accuracy']:.2f}"
        yield f"{found['mobilenet'][at]['top1']}, {found['mobilenet'][at]['top5']}"

    yield " ".join(row("float", "", *cells("float", None)).split())
    for bits in (8, 6, 4):
        for name, kind in kinds.items():
            yield row(name, *cells(bits, kind))
    retrained = [f"{found[n][4, 'dynamic']['retrained']:.2f}" for n in ("mnist", "fashion")]
    yield row("after an epoch of training", *retrained, "").replace("  ", " ")


@says("ranks", "tensorize")
def ranks(told):
    assert told["rows_that_are_not_good"] == 0
    yield "within 1 % below its budget"


@says("canonical", "tensorize")
def canonical(told):
    yield f"at most {share(told['largest_ratio'] - 1, digits=1)} larger"
