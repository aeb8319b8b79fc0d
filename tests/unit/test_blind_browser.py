"""The testers' page in a real browser: vote, reload, save, score; accessible, on a phone, light and dark."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scripts.blind.build import KEY, PAGE, build
from tests.unit.blind_fixtures import CANDIDATES, make_job

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage's payload."""
    job = make_job(tmp_path_factory.mktemp("blind"))
    build(job)
    return job.out


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as engine:
        found = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


def opened(browser: "Browser", made: Path, said: list[str], **settings: Any) -> "Page":
    """Open the page in a new profile; `said` gets what the console says and what is asked of the network."""
    page = browser.new_context(accept_downloads=True, **settings).new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: None if request.url.startswith(("file:", "blob:")) else said.append(request.url))
    page.goto((made / PAGE).as_uri())
    return page


def test_vote_reload_save_and_score(browser: "Browser", made: Path, tmp_path: Path) -> None:
    key, said = json.loads((made / KEY).read_text()), []
    page = opened(browser, made, said)
    ids = [
        c["id"]
        for c in json.loads(page.locator("#data").inner_text() or page.locator("#data").text_content() or "")[
            "comparisons"
        ]
    ]
    page.get_by_label("Your name or nickname").fill("Ann <3")
    for number, name in enumerate(ids):
        assert page.locator("#heading").inner_text() == f"Conversation {number + 1} of {len(ids)}"
        row = key["comparisons"][name]
        better = "A is better" if row["left"] == "oak-merged" or row["right"] == "oak-base" else "B is better"
        if number == 0:
            page.keyboard.press("Tab")
            page.get_by_label("Neither is good").check()
            page.get_by_label("Why? (optional)").fill('It "stops" early </script>')
        else:
            page.get_by_label(better).check()
        if number == 3:  # what was chosen is there again, and the page goes on where it was left
            page.reload()
            assert page.get_by_label("Your name or nickname").input_value() == "Ann <3"
            assert page.locator("#heading").inner_text() == f"Conversation 5 of {len(ids)}"
            page.get_by_role("button", name="Back").click()
            assert page.get_by_label(better).is_checked()
        if number < len(ids) - 1:
            page.get_by_role("button", name="Next").click()
    assert page.locator("#count").inner_text() == f"{len(ids)} of {len(ids)} answered"
    assert page.get_by_role("button", name="Next").is_disabled()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save votes as a file").click()
    assert download.value.suggested_filename == "votes-Ann-3.json"
    saved = tmp_path / "votes.json"
    download.value.save_as(saved)
    content = json.loads(saved.read_text(encoding="utf-8"))
    assert content["votes"][ids[0]] == {"choice": "neither", "comment": 'It "stops" early </script>'}
    assert len(content["votes"]) == len(ids)
    page.get_by_role("button", name="Copy votes").click()
    page.wait_for_function("document.getElementById('said').textContent.startsWith('Cop')")
    assert json.loads(page.get_by_label("Your votes as text").input_value()) == content
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Really delete all votes?").click()
    assert page.locator("#count").inner_text() == f"0 of {len(ids)} answered"
    assert said == []
    command = [sys.executable, "-m", "scripts.blind", "score", str(saved), "--key", str(made / KEY), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [r["candidate"] for r in json.loads(done.stdout)["ratings"]] == CANDIDATES[::-1]


def test_keys_vote_and_turn_but_not_while_writing(browser: "Browser", made: Path) -> None:
    said: list[str] = []
    page = opened(browser, made, said)
    page.keyboard.press("2")
    assert page.get_by_label("B is better").is_checked()
    page.keyboard.press("n")
    assert page.locator("#heading").inner_text().startswith("Conversation 2")
    page.get_by_label("Why? (optional)").fill("")
    page.get_by_label("Why? (optional)").press_sequentially("1 no pen")
    assert not page.get_by_label("A is better").is_checked()
    assert page.locator("#heading").inner_text().startswith("Conversation 2")
    page.locator("#heading").focus()
    page.keyboard.press("p")
    assert page.get_by_label("B is better").is_checked()
    assert said == []


def test_a_browser_that_keeps_nothing_says_so(browser: "Browser", made: Path) -> None:
    said: list[str] = []
    context = browser.new_context()
    context.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied') }})")
    page = context.new_page()
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((made / PAGE).as_uri())
    assert page.get_by_text("This browser does not keep votes").is_visible()
    page.get_by_label("A is better").check()
    assert page.locator("#count").inner_text().startswith("1 of ")
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible_and_fits(browser: "Browser", made: Path, scheme: str, width: int) -> None:
    import axe_core_python

    said: list[str] = []
    page = opened(browser, made, said, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page.get_by_label("A is better").check()
    page.get_by_role("button", name="Copy votes").click()
    page.add_script_tag(path=str(Path(axe_core_python.__file__).parent / "axe.min.js"))
    found = page.evaluate("axe.run(document)")
    broken = [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found["violations"]]
    assert broken == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark is (scheme == "dark")
    targets = page.evaluate(
        "[...document.querySelectorAll('button, .choices label')].map(e => e.getBoundingClientRect().height)"
    )
    assert min(targets) >= 44, "a thumb must hit it"
