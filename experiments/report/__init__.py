"""One page that tells a run: `write_report(workdir)`, or `morph report WORKDIR`.

`runs` reads what a run left, `charts` draws, `page` writes the page.
"""

from experiments.report.page import write_report
from experiments.report.runs import Run, RunError, read_run

__all__ = ["Run", "RunError", "read_run", "write_report"]
