"""Refits the Edge TPU model's constants to published latencies, and says how well it predicts them.

    morph fit_edge_tpu --json=results/edge_tpu.json

Takes 15 s. `regularizers/costs/edge_tpu.py` holds the constants that this prints as refitted,
in three digits. Without flags it reads the latencies that Coral published for its USB accelerator
and the layers of those networks, both in `experiments/data/edge_tpu.json`. Others are given by

    --table=latencies.csv       columns network, key, usb3_latency_ms, trusted (yes or no), and
                                family if rows are relatives
    --networks=networks.json    key -> input (height, width, channels), output_bytes, layers: the
                                records of `regularizers.costs.edge_tpu_table.latency_s`
    --json=report.json          writes the report too

Only trusted rows are fitted: least squares on log(predicted / published). "Left out" is what a row
is predicted by a fit to all other trusted rows, and "family out" by a fit to those of other
families: what to expect of a network unlike all that were fitted. log-MACs and log-parameters are
what one would take without a model: a straight line from the logarithm of either to that of the
latency, fitted and left out in the same ways. The JSON has the keys

    command, table              what was run on what
    constants{}                 per fitted constant: now, refitted, lowest and highest (of the fits
                                with one row left out)
    accuracy{}                  edge_tpu, log_macs, log_parameters: {trusted, all}: {in_sample,
                                left_out, family_out}: rows, median_error, mean_error,
                                largest_error (of the absolute relative errors), spearman
    alternatives[]              constant, value: what is assumed, assumed otherwise, all others
                                refitted; and the accuracy on trusted rows left out
    networks[]                  network, key, family, trusted, published_ms; predicted_ms and error
                                (constants as they are now), left_out_ms, left_out_error,
                                family_out_ms, family_out_error
"""

from __future__ import annotations

from absl import flags

from experiments.console.declared import Command


def define(own: flags.FlagValues) -> None:
    """Its flags."""
    flags.DEFINE_string("table", None, "Latencies (.csv), with --networks.", flag_values=own)
    flags.DEFINE_string("networks", None, "Layers (.json), with --table.", flag_values=own)
    flags.DEFINE_string("json", None, "Where to write the report.", flag_values=own)


COMMAND = Command(
    name="fit_edge_tpu",
    help=__doc__,
    declare=define,
    common=(
        "table",
        "networks",
        "json",
    ),
)
