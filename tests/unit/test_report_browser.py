"""The page in a real browser: nothing on the console, every chart has a size, links lead somewhere."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.report.build import build
from tests.unit.report_fixtures import make_job

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    "--virtual-time-budget=5000",
]
# Measures the page from inside; runs only in this test's copy, as the page's own policy forbids every script.
PROBE = """<script>
const box = e => { const r = e.getBoundingClientRect(); return [r.width, r.height, r.right] };
const drawn = [...document.querySelectorAll('svg.chart')].map(s => [...box(s), s.querySelectorAll('path').length]);
const wide = [...document.querySelectorAll('main > section > *')].filter(e => box(e)[2] > innerWidth + 1).length;
const goals = [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1));
const dead = goals.filter(id => !document.getElementById(id));
const ink = getComputedStyle(document.body);
const pre = document.createElement('pre'); pre.id = 'probe';
pre.textContent = JSON.stringify({drawn, wide, dead: dead.length, colour: ink.color, back: ink.backgroundColor,
  page: document.documentElement.scrollWidth <= innerWidth + 1});
document.body.append(pre);
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a whole recipe."""
    job = make_job(tmp_path_factory.mktemp("browser"))
    build(job)
    return job.out / "index.html"


def browse(path: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """Load a page; return its final DOM and what the console said."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_console_stays_empty_and_charts_are_there(page: Path, tmp_path: Path) -> None:
    dom, console = browse(page, tmp_path)
    assert console == []
    charts = re.findall(r'<svg class="chart".*?</svg>', dom, re.S)
    assert len(charts) == 9
    assert all(chart.count("<path") + chart.count("<rect") >= 1 for chart in charts)
    assert "rgb(" in charts[-1]


@pytest.mark.parametrize(("scheme", "size", "dark"), [("1", "1200,900", False), ("0", "500,900", True)])
def test_layout_in_light_and_dark_wide_and_narrow(
    page: Path, tmp_path: Path, scheme: str, size: str, dark: bool
) -> None:
    copy = tmp_path / "copy.html"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    flags = (f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={size}")
    dom, console = browse(copy, tmp_path / "profile", *flags)
    assert console == []
    match = re.search(r'<pre id="probe">(.*?)</pre>', dom)
    assert match is not None
    found = json.loads(match[1])
    assert all(width > 250 and height > 100 and paths >= 1 for width, height, _, paths in found["drawn"])
    assert (found["wide"], found["dead"], found["page"]) == (0, 0, True)
    light = [sum(map(int, re.findall(r"\d+", found[key])[:3])) for key in ("colour", "back")]
    assert (light[0] > light[1]) is dark


def test_policy_of_the_page_stops_any_script(page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    dom, console = browse(copy, tmp_path / "profile")
    assert 'id="probe"' not in dom
    assert any("Content Security Policy" in line for line in console)
