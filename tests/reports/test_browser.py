"""The report in a real browser: headless Chromium, at the width of a desk and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rankitect.reports import write_report
from tests.reports.example import write_example

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)"),
]

PROBE = """
<pre id="probe"></pre><script>
window.addEventListener("load", () => setTimeout(() => {
  const shown = (e) => e.getClientRects().length > 0;
  const texts = [...document.querySelectorAll("svg.figure text")].filter((e) => shown(e) && e.textContent.trim());
  const height = (e) => e.getBoundingClientRect().height;
  const tables = [...document.querySelectorAll("table.sortable")];
  const table = tables.find((t) => t.querySelectorAll("td.number").length > 3);
  const at = [...table.querySelector("tbody tr").children].findIndex((c) => c.classList.contains("number"));
  const rows = () => [...table.querySelectorAll("tbody tr")];
  const values = () => rows().map((r) => r.children[at].dataset.value).filter((v) => v !== undefined);
  const orders = [0, 1].map(() => {
    const head = table.querySelectorAll("th")[at];
    (head.querySelector("button") || head).click();
    return values();
  });
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
  dispatchEvent(new Event("resize"));
  const boxes = [...document.querySelectorAll(".scroll, pre, td, th")];
  const clipped = boxes.filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent.trim().slice(0, 60));
  const dark = getComputedStyle(document.body).backgroundColor;
  document.getElementById("theme").click();
  document.getElementById("probe").textContent = JSON.stringify({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    clipped, width: innerWidth, smallest: Math.min(...texts.map(height)), texts: texts.length, orders,
    themed: dark !== getComputedStyle(document.body).backgroundColor,
    cards: document.querySelectorAll("section.card").length,
  });
}, 200));
</script></body>"""

# Windows of a headless browser have a least width; a frame has the width of a phone.
FRAME = """<!doctype html><body style="margin:0"><iframe style="border:0;width:{width}px;height:900px" srcdoc="{page}">
</iframe><pre id="told"></pre><script>
addEventListener("load", () => setTimeout(() => {{
  const probe = document.querySelector("iframe").contentDocument.getElementById("probe");
  document.getElementById("told").textContent = probe.textContent;
}}, 1000));
</script></body>"""


def probe(page: Path, width: int) -> tuple[dict[str, Any], list[str]]:
    """What a script finds in the page, and what the console says."""
    probed = page.with_name(f"probed-{width}.html")
    text = page.read_text(encoding="utf-8").replace("</body>", PROBE)
    probed.write_text(FRAME.format(width=width, page=html.escape(text)), encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
        "--virtual-time-budget=3000", f"--window-size={max(width, 500)},900", probed.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)
    assert found is not None
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    result: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return result, console


@pytest.mark.parametrize("width", [1300, 390])
def test_the_page_works_in_a_browser(tmp_path: Path, width: int) -> None:
    found, console = probe(write_report(write_example(tmp_path / "run")), width)
    assert console == []
    assert found["width"] == width
    assert found["cards"] >= 15
    assert found["overflow"] <= 0, "the page scrolls sideways"
    assert found["clipped"] == [], "a column, a cell or a command is cut off"
    assert found["texts"] > 20
    assert found["smallest"] >= 10, "pixels of the smallest text in a figure"
    assert found["themed"], "the button changes the theme"
    once, twice = ([float(v) for v in order] for order in found["orders"])
    assert once != twice
    assert sorted(once) in (once, once[::-1])
    assert once == twice[::-1]
