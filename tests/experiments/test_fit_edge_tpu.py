import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from experiments import fit_edge_tpu
from experiments.published import read_published, read_tables
from regularizers.costs.edge_tpu import (
    EDGE_TPU,
    seconds,
)
from regularizers.costs.form import EXACT

ROOT = Path(__file__).parents[2]
PUBLISHED = read_published()
NETWORKS = {network.key: network for network in PUBLISHED}


def layer(kind, *, map=(1, 1), in_map=None, window=1, channels=(8, 8), weight_bytes=0.0):
    height, width = map
    in_height, in_width = in_map or map
    return {
        "kind": kind, "window": window, "height": height, "width": width,
        "in_height": in_height, "in_width": in_width, "in_channels": channels[0],
        "out_channels": channels[1], "weight_bytes": weight_bytes,
    }  # fmt: skip


def record(op="conv", **sizes):
    usual = {
        "in_h": 9, "in_w": 9, "in_c": 5, "out_h": 9, "out_w": 9, "out_c": 7, "kernel_h": 3,
        "kernel_w": 3, "stride": 1,
    }  # fmt: skip
    return {"op": op, **usual, **sizes}


@pytest.fixture(scope="module")
def report():
    return fit_edge_tpu.make_report(PUBLISHED)


def test_accuracy_on_the_rows_that_are_trusted(report):
    ours = report["accuracy"]["edge_tpu"]
    for way in ("in_sample", "left_out", "family_out"):
        assert ours["trusted"][way]["rows"] == 15
        assert ours["all"][way]["rows"] == 17
        assert ours["trusted"][way]["median_error"] <= 0.10
        assert ours["trusted"][way]["mean_error"] <= 0.15
        assert ours["trusted"][way]["spearman"] >= 0.97
        for rows in ("trusted", "all"):
            for baseline in ("log_macs", "log_parameters"):
                theirs = report["accuracy"][baseline][rows][way]
                assert ours[rows][way]["median_error"] < theirs["median_error"]
                assert ours[rows][way]["mean_error"] < theirs["mean_error"]
                assert ours[rows][way]["spearman"] > theirs["spearman"]
    for name, constant in report["constants"].items():  # these are the fitted ones, to 3 digits
        assert constant["now"] == float(f"{constant['now']:.3g}"), name
        assert constant["now"] == pytest.approx(constant["refitted"], rel=2e-3), name


def test_the_table_of_a_network_and_the_report_agree(report):
    squeezenet = next(row for row in report["networks"] if row["key"] == "squeezenet10_224")
    network = NETWORKS["squeezenet10_224"]
    per_layer, fixed = seconds(network.layers, 224 * 224 * 3, 1001, EXACT)
    assert squeezenet["predicted_ms"] == pytest.approx(1e3 * (per_layer.sum() + fixed), rel=1e-12)
    assert squeezenet["error"] == pytest.approx(squeezenet["predicted_ms"] / 2.1 - 1.0)


def test_a_fit_finds_the_constants_that_made_the_data(rng):
    true = dataclasses.replace(
        EDGE_TPU, utilisation=0.61, depthwise_steps=5.3, bytes_per_s=290e6, startup_s=0.21e-3
    )
    trusted = [network for network in PUBLISHED if network.trusted]
    clean = [dataclasses.replace(n, seconds=fit_edge_tpu.predict(n, true)) for n in trusted]
    found = fit_edge_tpu.fit(clean)
    for name in fit_edge_tpu.FITTED:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=1e-5)
    noisy = [dataclasses.replace(n, seconds=n.seconds * rng.lognormal(0.0, 0.1)) for n in clean]
    found = fit_edge_tpu.fit(noisy)
    predicted = np.asarray([fit_edge_tpu.predict(network, found) for network in clean])
    given, truth = (np.asarray([n.seconds for n in some]) for some in (noisy, clean))
    assert fit_edge_tpu.accuracy(given, predicted)["mean_error"] > 0.05
    assert fit_edge_tpu.accuracy(truth, predicted)["mean_error"] < 0.05  # it averages the noise


def test_a_row_is_left_out_of_its_own_prediction():
    """Of a 'fit' that remembers what it was fitted to."""
    a, b, c = (
        dataclasses.replace(PUBLISHED[0], key=key, family=family, seconds=s, trusted=trusted)
        for key, family, s, trusted in [
            ("a", "F", 1.0, True),
            ("b", "F", 10.0, True),
            ("c", "G", 100.0, False),
        ]
    )

    def fit_to(networks):
        total = sum(network.seconds for network in networks)
        return lambda network: total

    def by(related):
        return fit_edge_tpu.without([a, b, c], fit_to, related).tolist()

    assert by(lambda network: network.key) == [10.0, 1.0, 11.0]
    assert by(lambda network: network.family) == [0.0, 0.0, 11.0]


def test_what_is_assumed_hardly_matters():
    some = {"overlap": (0.0,), "cache_bytes": (7.0 * 2**20,)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_edge_tpu, "ALTERNATIVES", some)
        found = fit_edge_tpu.make_alternatives(PUBLISHED)
    assert [(a["constant"], a["value"]) for a in found] == [
        ("overlap", 0.0),
        ("cache_bytes", 7 * 2**20),
    ]
    for alternative in found:
        assert alternative["rows"] == 15
        assert alternative["mean_error"] < 0.08


def test_the_command_reads_other_tables(tmp_path, capsys):
    table, networks = tmp_path / "table.csv", tmp_path / "networks.json"
    rows, records = ["network,key,usb3_latency_ms,trusted"], []
    for n in (8, 64, 256, 512, 1024, 2048):
        rows.append(f"Dense {n},d{n},{0.5 + n * n / 4e5},yes")
        layer = record("dense", in_h=1, in_w=1, in_c=n, out_h=1, out_w=1, out_c=n, kernel_h=1,
                       kernel_w=1)  # fmt: skip
        records.append(
            f'"d{n}": {{"input": [1, 1, {n}], "output_bytes": {n}, "layers": [{layer}]}}'
        )
    table.write_text("\n".join(rows))
    networks.write_text("{" + ",".join(records).replace("'", '"') + "}")
    found = read_tables(table, networks)
    assert [network.key for network in found] == ["d8", "d64", "d256", "d512", "d1024", "d2048"]
    assert found[1].seconds == pytest.approx((0.5 + 64 * 64 / 4e5) / 1e3)
    assert fit_edge_tpu.multiply_adds(found[1]) == 64 * 64
    assert fit_edge_tpu.parameters(found[1]) == 64 * 65
    for bad, message in [
        ("network,key,usb3_latency_ms\nA,d8,1", "has no column trusted"),
        (f"{rows[0]}\nA,d9,1,yes", "has no network 'd9'"),
        (f"{rows[0]}\nA,d8,1,maybe", "trusted is yes or no, not 'maybe'"),
        (f"{rows[0]}\nA,d8,0,yes", "above 0 ms, not 0"),
        (f"{rows[0]}\nA,d8,1,yes", "4 constants need more than 1 trusted rows"),
    ]:
        table.write_text(bad)
        with pytest.raises(SystemExit):
            fit_edge_tpu.main(["fit", f"--table={table}", f"--networks={networks}"])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        fit_edge_tpu.main(["fit", f"--table={table}"])
    assert "go together" in capsys.readouterr().err


def test_ranks_and_their_correlation():
    def spearman(a, b):
        return fit_edge_tpu.spearman(np.asarray(a), np.asarray(b))

    assert spearman([1.0, 2.0, 30.0], [0.1, 0.5, 0.6]) == pytest.approx(1.0)
    assert spearman([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(-1.0)
    # ranks 1.5 1.5 3 against 1 2 3
    assert spearman([1.0, 1.0, 2.0], [1.0, 2.0, 3.0]) == pytest.approx(3**0.5 / 2)


def test_accuracy_by_hand():
    found = fit_edge_tpu.accuracy(np.asarray([1.0, 2.0, 4.0]), np.asarray([1.5, 1.8, 4.0]))
    assert found == pytest.approx(
        {"rows": 3, "median_error": 0.1, "mean_error": 0.2, "largest_error": 0.5, "spearman": 1.0}
    )


def test_the_report_that_is_kept_is_the_one_that_is_made(report):
    text = (ROOT / "results" / "edge_tpu.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    assert kept["command"] == "python -m experiments.fit_edge_tpu --json=results/edge_tpu.json"
    assert set(kept) == {"command", "table", "alternatives", *report}
    for name, rows in report["accuracy"].items():
        for which, ways in rows.items():
            for way, figures in ways.items():
                assert kept["accuracy"][name][which][way] == pytest.approx(figures, rel=1e-4)


@pytest.mark.parametrize("text", ["{", "null", "[" * 1000, '{"a": NaN}'])
def test_layers_that_are_no_json_end_in_one_line(tmp_path, capsys, text):
    table, networks = tmp_path / "table.csv", tmp_path / "networks.json"
    table.write_text("network,key,usb3_latency_ms,trusted\n")
    networks.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        fit_edge_tpu.main(["fit", f"--table={table}", f"--networks={networks}"])
    assert len(capsys.readouterr().err.splitlines()) == 1
