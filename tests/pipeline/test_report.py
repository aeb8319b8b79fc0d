"""The report of a finished run: the artifact, the page with what was measured, Snakemake's own report, comparison."""

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.pipeline.bench import Bench

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RESULTS = "results/tiny"


def test_what_was_measured_is_on_the_page_but_in_no_artifact(built: Bench) -> None:
    whole = (built.folder / RESULTS / "report.html").read_text(encoding="utf-8")
    kept = (built.folder / RESULTS / "report/index.html").read_text(encoding="utf-8")
    for text in ("tokens/s", "Peak memory", 'id="environment"', "CPU time", "2.13.0"):
        assert text in whole and text not in kept
    assert len(whole.encode()) < 5_000_000
    sums = (built.folder / RESULTS / "report/SHA256SUMS").read_text().splitlines()
    assert [line.split()[1] for line in sums] == ["index.html", "scorecard.json"]
    source = (built.folder / RESULTS / "download/demo-pippa/SHA256SUMS").read_text().split()[0]
    assert source in whole, "the lineage ends at the digest of the source's own file"


def test_a_lost_page_comes_back_and_the_artifact_stays(bench: Bench) -> None:
    page, sums = bench.folder / RESULTS / "report.html", bench.folder / RESULTS / "report/SHA256SUMS"
    before = sums.read_bytes()
    drawn = page.read_bytes()
    page.unlink()
    made = bench.python("-m", "scripts.report", "page", RESULTS)
    assert (made.returncode, made.stdout) == (0, f"{RESULTS}/report.html\n"), made.stderr
    assert page.read_bytes() == drawn and sums.read_bytes() == before
    assert bench.run().nothing
    sums.parent.joinpath("artifact.json").unlink()
    assert bench.python("-m", "scripts.report", "page", RESULTS).returncode == 2


def test_a_page_is_not_drawn_over_artifacts_that_have_changed_since(bench: Bench) -> None:
    sums = bench.folder / RESULTS / "merge/grafted/SHA256SUMS"
    sums.chmod(0o644)
    sums.write_text(sums.read_text().replace("a", "b"))
    made = bench.python("-m", "scripts.report", "page", RESULTS)
    assert made.returncode == 1
    assert "merge/grafted: has changed since the report was made" in made.stderr


def test_a_run_is_held_against_another(bench: Bench, built: Bench) -> None:
    args = ("-m", "scripts.report", "compare", RESULTS, str(built.folder / RESULTS))
    same = bench.python(*args)
    assert same.returncode == 0, same.stderr
    count = len(list((bench.folder / RESULTS).glob("*/**/SHA256SUMS"))) - 1 - 3  # its own, and three downloads
    assert f"{count} of {count} artifacts have the same bytes in both" in same.stdout
    assert "Training settings that differ" not in same.stdout
    (bench.folder / "smaller.yaml").write_text("models: {sapling: {train: {optimizer: {learning_rate: 0.001}}}}\n")
    bench.overlays = ("smaller.yaml",)
    assert bench.run().code == 0
    other = bench.python(*args, "--page", "difference.html")
    assert other.returncode == 0, other.stderr
    assert "optimizer.learning_rate  0.001  0.003" in other.stdout
    assert "evaluation loss, published" in other.stdout
    assert (bench.folder / "difference.html").read_text().count('class="chart"') == 3


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: install it, or put it on PATH")
def test_snakemakes_own_report_holds_the_page(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "snakemake.html"
    run = bench.run("--report", str(out))
    assert run.code == 0, run.output
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        page = browser.new_page()
        page.goto(out.as_uri())
        page.get_by_text("Results", exact=True).first.click()
        page.get_by_text("Report", exact=True).last.click()
        page.locator("a[iconname=eye]").first.click()
        shown = page.frame_locator("iframe")
        assert shown.locator("h1").inner_text() == "Atelier in miniature"
        assert shown.locator("svg.chart").count() > 8
        browser.close()
