"""Pages as a browser lays them out, on a phone and on a screen: nothing is too narrow or too small.

Headless Chromium runs a script in a copy of each page, whose policy is taken out; where there is
none, only the rules of the style sheet are tested, in `test_report.py`.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments import compare, inspect
from experiments.report import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
MEASURE = """<script>
addEventListener("load", () => {
  const pen = document.createElement("canvas").getContext("2d");
  const narrow = [...document.querySelectorAll("th, td")].filter(cell => {
    const style = getComputedStyle(cell);
    pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const room = cell.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const words = cell.textContent.split(/\\s+/).map(word => pen.measureText(word).width);
    return cell.offsetParent && Math.max(...words) > room + 1;
  });
  const small = [...document.querySelectorAll("svg text")].filter(
    text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a < 10.99);
  const told = list => list.map(one => one.textContent);
  document.body.innerHTML = "<pre>" + JSON.stringify({
    narrow: told(narrow), small: told(small), cells: document.querySelectorAll("td").length,
    wide: document.documentElement.scrollWidth > innerWidth, width: innerWidth,
  }).replace(/&/g, "&amp;").replace(/</g, "&lt;") + "</pre>";
});
</script>"""


def measured(path, width, folder):
    """What is wrong with a page in a window of that many pixels."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", path.read_text())
    page = folder / "page.html"
    page.write_text(text.replace("</head>", f"{MEASURE}</head>", 1))
    line = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom",
        page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(
        html.unescape(re.search(r"<body><pre>(.*?)</pre>", done.stdout, re.DOTALL)[1])
    )


@pytest.fixture
def pages(make_run, tmp_path):
    """A report, a comparison, and the picture of a network."""
    first, second = make_run("first"), make_run("second", accuracy=0.8, width=0.1)
    results = json.loads((first / "results.json").read_text())
    results["tested"] = {"confusion": [[100 * (i == j) for j in range(10)] for i in range(10)]}
    (first / "results.json").write_text(json.dumps(results))
    compared, drawn = tmp_path / "compare.html", tmp_path / "channels.html"
    compare.main(["compare", str(first), str(second), f"--output={compared}"])
    inspect.main(["inspect", "--seed_network=mlp", "--input=1,8,8,1", f"--picture={drawn}"])
    return [write_report(first), compared, drawn]


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium here")
def test_no_cell_is_narrower_than_a_word_and_no_text_of_a_chart_is_small(pages, tmp_path):
    for width in (1280, 420):
        for page in pages:
            found = measured(page, width, tmp_path)
            place = f"{Path(page).name} at {found['width']}"
            assert found["narrow"] == [], place
            assert found["small"] == [], place
            assert not found["wide"], place
    assert found["width"] <= 520
