"""The pages in a real browser: console, charts, links, accessibility, phone, dark mode, print."""

import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.report.sidebyside import main as compare
from scripts.report.volatile import main as whole_page
from tests.conftest import ROOT
from tests.unit.report_fixtures import make_results, whole_spec, whole_tree

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: install it, or put it on PATH")
WIDE, PHONE, SMALL_PHONE = 1280, 390, 320
PAGES = ("report/index.html", "report.html", "difference.html")
# Scroll shadows are gradients, on which axe measures no contrast: they are switched off for it alone. What it can't
# measure for other reasons (text of drawings, text under the bar of sections) has colours that test_report.py holds.
PLAIN = ".scroll { background-image: none !important; }"
# Boxes and number of shapes of every chart that is shown.
DRAWN = """() => [...document.querySelectorAll('svg.chart')].filter(e => e.getClientRects().length).map(e => {
  const box = e.getBoundingClientRect();
  return [box.width, box.height, e.querySelectorAll('path, rect, line').length];
})"""
DEAD = """() => [...document.querySelectorAll('a[href^="#"]')].map(a => a.getAttribute('href').slice(1))
  .filter(id => !document.getElementById(id))"""
# What stands out of the window and no region of its own scrolls.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.right > innerWidth + 1 && box.width && !e.closest('.scroll, nav, .hidden') && !e.closest('svg svg');
}).map(e => e.tagName + '.' + e.getAttribute('class'))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished `results/<recipe>` with all three pages."""
    root = tmp_path_factory.mktemp("browser") / "folder_with_a_name_that_offers_no_place_to_break"
    results = make_results(root)
    assert whole_page([str(results)]) == 0
    tree = {**whole_tree()}
    tree.pop("merge/blend")
    other = make_results(root / "other", tree, whole_spec(title="Evening tales again"))
    assert compare([str(results), str(other), "--page", str(results / "difference.html")]) == 0
    return results


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        yield running
        running.close()


def opened(
    browser: Browser, path: Path, width: int = WIDE, scheme: Any = "light", **more: Any
) -> tuple[Page, list[str]]:
    """Open a page; return it with what its console and its requests say (the latter beside its own file)."""
    page = browser.new_context(viewport={"width": width, "height": 860}, color_scheme=scheme, **more).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != path.as_uri() else None)
    page.goto(path.as_uri())
    return page, said


@pytest.mark.parametrize("name", PAGES)
def test_console_stays_empty_charts_are_drawn_and_links_lead_somewhere(
    browser: Browser, pages: Path, name: str
) -> None:
    page, said = opened(browser, pages / name)
    drawn = page.evaluate(DRAWN)
    # Two fine-tunes, five maps of a merge, three histograms; the whole page adds throughput, MFU and memory.
    assert (
        len(drawn) == {"report/index.html": 2 * 4 + 5 + 3, "report.html": 2 * 7 + 5 + 3, "difference.html": 2 * 2}[name]
    )
    assert all(width > 250 and height > 100 and shapes > 3 for width, height, shapes in drawn), drawn
    assert page.evaluate(DEAD) == []
    files = page.eval_on_selector_all("a:not([href^='#'])", "all => all.map(a => a.getAttribute('href'))")
    assert all((pages / name).parent.joinpath(file).is_file() for file in files), files
    assert said == []
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(WIDE, "light"), (PHONE, "dark")])
def test_axe_finds_nothing(browser: Browser, pages: Path, name: str, width: int, scheme: str) -> None:
    page, _ = opened(browser, pages / name, width, scheme, bypass_csp=True, reduced_motion="reduce")
    page.add_style_tag(content=PLAIN)
    page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
    result = Axe().run(page)
    found = [f"{v['id']}: {n['html'][:120]}" for v in result["violations"] for n in v["nodes"][:3]]
    assert found == []
    assert len(result["passes"]) > 20
    ink, back = (page.evaluate(f"() => getComputedStyle(document.body).{key}") for key in ("color", "backgroundColor"))
    light = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ink, back)]
    assert (light[0] > light[1]) is (scheme == "dark")
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [PHONE, SMALL_PHONE])
def test_a_phone_never_scrolls_sideways(browser: Browser, pages: Path, name: str, width: int) -> None:
    page, _ = opened(browser, pages / name, width)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    page.context.close()


def test_choosing_a_released_model_shows_the_way_back_to_its_sources(browser: Browser, pages: Path) -> None:
    page, _ = opened(browser, pages / "report.html")
    lit = (
        "() => [...document.querySelectorAll('.graph path')].filter(e => getComputedStyle(e).strokeOpacity == 1).length"
    )
    assert page.evaluate(lit) == 0
    page.click(".graph a[href='#artifact-merge--blend']")
    edges = page.evaluate("() => document.querySelectorAll('.graph path').length")
    assert page.evaluate(lit) == edges > 10, "everything but benchmarks leads to the merge"
    row = page.locator("tr:target")
    assert "train/letters-model" in row.inner_text()
    for step in ("train/letters-model", "pack/letters-model", "mix/evening", "clean/tales", "download/tales"):
        page.locator("tr:target").get_by_role("link", name=step, exact=True).click()
        assert page.locator("tr:target").get_attribute("id") == "artifact-" + step.replace("/", "--")
    assert 0 < page.evaluate(lit) + 1 < edges
    page.locator("tr:target summary").click()
    shown = page.locator("tr:target").inner_text()
    assert "tales.json" in shown and re.search(r"[0-9a-f]{64}", shown)
    page.context.close()


def test_paper_shows_whole_tables(browser: Browser, pages: Path, tmp_path: Path) -> None:
    page, said = opened(browser, pages / "report.html", 718)  # A4 less the margins, at 96 dots an inch
    page.emulate_media(media="print")
    cut = page.evaluate(
        "() => [...document.querySelectorAll('table, svg.chart')].filter(e => e.getClientRects().length"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.parentElement.getAttribute('aria-label'))"
    )
    assert cut == []
    assert len(page.pdf(path=tmp_path / "report.pdf", format="A4")) > 50_000
    assert said == []
    page.context.close()


def test_policy_of_the_page_stops_any_script(browser: Browser, pages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.html"
    text = (pages / "report.html").read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", "<script>document.title = 'ran'</script></body>"), encoding="utf-8")
    page, said = opened(browser, copy)
    assert page.title() == "Evening tales · report"
    assert any("Content Security Policy" in line for line in said)
    page.context.close()


def test_the_picture_of_the_readme_is_drawn(pages: Path, tmp_path: Path) -> None:
    def drawn(page: str, *more: str) -> subprocess.CompletedProcess[str]:
        # A process of its own: one process takes one Playwright at a time.
        command = [sys.executable, "-m", "tests.picture", str(pages / page), str(tmp_path / "drawn.png"), *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    heights = {}
    for scheme, more, width in (("light", [], 1280), ("dark", ["--whole", "--dark", "--width", "390"], 390)):
        assert drawn("report.html", *more).returncode == 0
        with Image.open(tmp_path / "drawn.png") as image:
            assert image.width == math.ceil(0.75 * width)
            back = image.convert("RGB").getpixel((2, 2))
            heights[scheme] = image.height
        assert isinstance(back, tuple) and (sum(back) > 600) is (scheme == "light")
    assert heights["light"] < 2400 < heights["dark"]
    lost = drawn("lost.html")
    assert lost.returncode == 1 and "lost.html: no such page" in lost.stderr
