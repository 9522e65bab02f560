"""The end of a page: how a network is loaded, and what it was made with."""

from __future__ import annotations

from experiments.report.runs import Run
from experiments.report.tables import esc, spelled, table


def use_section(run: Run) -> str:
    """The lines that load the network in Python."""
    lines = (
        "import morph",
        "",
        f'arch = morph.Architecture.load("{run.workdir}/architecture.json")',
        f'variables = morph.load_variables("{run.workdir}/variables")',
        "network = morph.linen_network(model).resized(arch)  # model: the seed network, as it was",
        "outputs = network.predict(variables, x)",
    )
    return f'<pre tabindex="0">{esc(chr(10).join(lines))}</pre>'


def provenance_section(run: Run) -> str:
    """The command, the machine, the data and the settings."""
    results = run.results
    facts = {
        "data": results.get("dataset", run.config.get("dataset")),
        "data fingerprint": results.get("data_fingerprint", run.config.get("data_fingerprint")),
        "device": results.get("device"),
        "time": spelled(results["seconds"]) if "seconds" in results else None,
        "Python": results.get("python"),
        **results.get("versions", {}),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value is not None]
    command = results.get("command")
    told = f"<pre>{esc(command)}</pre>" if command else ""
    told += table("Machine and data", ["what", "value"], rows) if rows else ""
    if run.config:
        settings = [[name, str(value)] for name, value in sorted(run.config.items())]
        told += (
            "<details><summary>Configuration</summary>"
            f"{table('Every setting', ['setting', 'value'], settings)}</details>"
        )
    return told
