"""Speed and runs."""

from figures.said import by, says, span


@says("proximal_step")
def proximal_step(told):
    found = by(told["rows"], "network", "pull")
    decay = {network: found[network, "decay"] for network in ("resnet20", "resnet8", "mlp")}
    a, b, c = (one["with_looks"] for one in decay.values())
    yield f"is {a:.2f} for ResNet-20, {b:.2f} for ResNet-8 and {c:.2f} for an MLP"
    yield f"takes {decay['mlp']['plain_ms']:.1f} ms (the goal was 1.10)"
    pulls = ("gamma", "group_lasso")
    deep = [found[network, pull]["ratio"] for network in ("resnet8", "resnet20") for pull in pulls]
    small = [found["mlp", pull] for pull in pulls]
    looks = [one["with_looks"] - one["ratio"] for one in small]
    yield f"it is {span(deep, '{:.2f}')} for the residual networks"
    yield f"{span((one['ratio'] for one in small), '{:.2f}')} for the MLP"
    yield f"to which looks add {span(looks, '{:.2f}')}"


@says("inference")
def inference(told):
    found = by(told["rows"], "network")
    names = {"ResNet-50": "resnet50", "DenseNet-121": "densenet121", "Swin-T": "swin_t"}
    yield ", ".join(f"{n} {found[m]['first_s']:.2f} s" for n, m in names.items()).replace(
        "ResNet-50", "ResNet-50 takes"
    )
    vit, chain = found["vit_l16"], found["chain150"]
    yield f"ViT-L/16 {vit['first_s']:.2f} s and {vit['peak_mib']:.0f} MiB of memory"
    yield f"{chain['equations']:,} equations take {chain['first_s']:.1f} s"


@says("torch_pruning")
def torch_pruning(told):
    names = ("ResNet-50", "ResNet-101", "MobileNetV2", "DenseNet-121", "ViT-B/16")
    for name, one in zip(names, told["rows"], strict=True):
        yield f"{name} {one['seconds_ratio']:.2f}"


@says("speedup")
def speedup(told):
    of = {n: one["speedup_over_reduction"] for n, one in by(told["rows"], "program").items()}
    yield f"It is {of['half']:.2f}; for the same network written natively {of['half, native']:.2f},"
    yield f"channel {of['half, padded image']:.2f}. The goal was 0.85"


@says("onnx_speed")
def onnx_speed(told):
    yield f"median speed-up is {told['medians']['speedup_share']:.2f} of the reduction of FLOPs"
    shares = span((one["speedup_share"] for one in told["rows"]), "{:.2f}")
    yield f"({shares}; the goal was {told['goal']})"


@says("costs")
def costs(told):
    times = span((one["compiled_ms"] for one in told["evaluations"]), "{:.2f}")
    slope = by(told["evaluations"], "cost")["edge_tpu"]["smooth_gradient_ms"]
    yield f"It takes {times} ms, the Edge TPU's gradient {slope:.2f} ms."
    yield f"takes {span((one['ratio'] for one in told['rows']), '{:.2f}')} times"


@says("kill")
def kill(told):
    assert told["identical"] == told["kills"]
    yield f"bit-identical results {told['identical']} times out of {told['kills']}"
    assert told["most_records_lost"] <= 2 * told["records_in_an_interval"]
    yield "loses at most two checkpoint intervals"


@says("kill_processes")
def kill_processes(told):
    ends = [
        (status, f"process {row['killed']} of this run is gone" in line)
        for row in told["rows"]
        for status, line in zip(row["statuses"], row["said"], strict=True)
    ]
    yield f"end by themselves within {told['longest_end_s']:.1f} s"
    yield f"{ends.count((75, True))} of {len(ends)} with status 75"
    yield f"bit-identical results {told['identical']} times out of {told['kills']}"


@says("scale")
def scale(told):
    rows = [one for one in told["rows"] if one["run"] not in ("one", "nudged")]
    worst = max(one[phase] for one in rows for phase in ("plain", "shrink", "dying"))
    yield f"agree with those on one device within {worst:.1e}"


@says("mesh")
def mesh(told):
    apart = max(one["difference_before_the_cut"] for one in told["rows"])
    yield f"agree with those on one device within {apart:.1e}"
    same = sum(one["same_structure"] for one in told["rows"])
    yield f"The same channels are kept in {same} of {len(told['rows'])}"


def _account_rows(told):
    for one in (one for one in told["rows"] if not one["network"].startswith("small")):
        yield (
            f"| {one['network']}, `{one['mesh']}` | {one['gflops']:,.0f} | "
            f"{one['flops_ratio'] - 1:.2%} | {one['moved_mb']:,.0f} | "
            f"{one['moved_mb_added']:.1f} | {one['collectives']:,} | {one['collectives_added']} | "
            f"{one['memory_gb']:.2f} | {one['memory_gb_added']:.2f} |"
        ).replace("%", " %")


@says("account")
def account(told):
    yield from _account_rows(told)
    found = by(told["rows"], "network")
    small, large = found["small Llama"], found["Llama 3 8B"]
    yield f"{small['memory_over_even_share']:.2f} times the even share"
    yield f"Llama 3 8B's state takes {large['state_over_even_share']:.2f} times"
    yield f"a whole step {large['memory_over_even_share']:.2f} times"


@says("sweep")
def sweep(told):
    found = by(told["rows"], "stage")
    yield f"takes {found['whole, with compiling']['ratio']:.1f} times as long as a single run"
    yield f"takes {found['10 steps, warm']['ratio']:.1f} times as long"


@says("input_pipeline")
def input_pipeline(told):
    for network, name in (("mlp", "MLP"), ("resnet8", "ResNet-8")):
        rows = [one for one in told["rows"] if one["network"] == network]
        ratios = [one["ratio"] for one in rows if one["data"] in ("python", "grain")]
        yield f"{name} {span(ratios, '{:.2f}')}"


@says("hostile_files")
def hostile_files(told):
    assert not any(one["crashed"] for one in told["rows"])
    yield f"{told['files']:,} mutated files"
    yield f"slowest took {max(one['slowest_s'] for one in told['rows']):.2f} s"
    yield f"memory grew by {told['grown_mib']:.0f} MiB"
