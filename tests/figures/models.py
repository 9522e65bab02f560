"""Models of cost: their constants, and how accurate they are."""

from figures.said import row, says, share, span

DTYPES = ("float32", "float16", "bfloat16", "int8")
RANGES = {
    "utilisation": (1, "{:.3f}", "{} steps per cycle"),
    "depthwise_steps": (1, "{:.2f}", "{}"),
    "bytes_per_s": (1e6, "{:.0f}", "{} MB/s"),
    "startup_s": (1e-3, "{:.3f}", "{} ms"),
}
LEFT_OUT = {"in_sample": "in sample", "left_out": "one left out", "family_out": "family left out"}


@says("regularizers.costs.devices:DEVICES", "costs")
def devices(told):
    for name, one in told.items():
        peaks = [one.peak_flops_per_s.get(dtype, 0) / 1e12 for dtype in DTYPES]
        figures = (f"{peak:.4g}" if peak else "" for peak in peaks)
        yield " ".join(row(name, *figures, f"{one.bytes_per_s / 1e9:.4g}").split())


@says("regularizers.costs.form:SMOOTH", "costs")
def smooth(told):
    equal, twice = (told.maximum(1.0, other) - 1 for other in (1.0, 0.5))
    yield f"{share(equal)} more if they are equal, {share(twice, digits=2)} more if one is twice"


@says("regularizers.costs.energy:EnergyTable", "costs")
def energy(told):
    table = told()
    times, plus = (1e12 * one["float32"] for one in (table.multiply_joules, table.add_joules))
    yield f"in float32 {times:.1f} pJ for a multiplication and {plus:.1f} pJ for an addition"
    yield f"{8e12 * table.sram_joules_per_byte:.0f} pJ for 64 bits of a 1 MB SRAM"
    yield f"{4e12 * table.dram_joules_per_byte:.0f} pJ for 32 bits of DRAM"


@says("regularizers.calibration.fit:OUTLIER", "calibrate")
def outliers(told):
    yield f"beyond {share(told)} an error counts linearly"


@says("regularizers.calibration.measure:QUIET_SPREAD", "calibrate")
def busy(told):
    yield f"spread by more than {share(told)} (interquartile range over median)"


@says("regularizers.costs.edge_tpu:EDGE_TPU", "edge_tpu")
def edge_tpu_assumed(told):
    yield row("`cache_bytes`", f"{told.cache_bytes / 2**20:.1f} MiB", "")[:-2]
    yield row("`cache_rounding_bytes`", f"{told.cache_rounding_bytes / 2**20:.2f} MiB", "")[:-2]
    yield row("`clock_hz`", f"{told.clock_hz / 1e6:.0f} MHz", "")[:-2]
    yield row("`instruction_bytes`", f"{told.instruction_bytes:.0f} a layer", "")[:-2]


@says("edge_tpu", "edge_tpu")
def edge_tpu_fitted(told):
    for name, (unit, form, text) in RANGES.items():
        now, low, high = (told["constants"][name][of] / unit for of in ("now", "lowest", "highest"))
        found = f"{form.format(low)} to {form.format(high)}"
        yield f"| `{name}` | {text.format(form.format(now))} | fitted"
        yield f" | {found} |"
    other = [100 * one["mean_error"] for one in told["alternatives"]]
    ours = told["accuracy"]["edge_tpu"]["trusted"]["left_out"]["mean_error"]
    yield f"is {span(other)} % instead of {share(ours, digits=1)}"
    for predictor in told["accuracy"].values():
        for of in ("trusted", "all"):
            for way in LEFT_OUT if predictor is told["accuracy"]["edge_tpu"] else ("left_out",):
                one = predictor[of][way]
                errors = (one[f"{kind}_error"] for kind in ("median", "mean", "largest"))
                shares = (share(error, digits=1) for error in errors)
                yield row(LEFT_OUT[way], *shares, f"{one['spearman']:.3f}")
    for one in told["networks"]:
        errors = (one[key] for key in ("error", "left_out_error", "family_out_error"))
        yield row(
            one["network"] + " (not trusted)" * (not one["trusted"]),
            f"{one['published_ms']:.1f} ms",
            f"{one['predicted_ms']:.2f} ms",
            *(f"{100 * error:+.1f} %" for error in errors),
        )
