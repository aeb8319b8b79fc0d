"""The report stage: figures, page, escaping, determinism, and clear errors for damaged payloads."""

import hashlib
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts.artifact.stage import StageError
from scripts.recipe.report import SourceFacts
from scripts.report import charts
from scripts.report.build import build
from scripts.report.facts import projection_order, split_tensor
from scripts.report.formats import style
from scripts.report.lineage import NODE_WIDTH, draw, parents_of
from scripts.report.terminal import _merges
from tests.unit.report_fixtures import (
    PARTS,
    SOURCES,
    clean,
    held_out,
    make_job,
    merge,
    mix,
    pack,
    train,
    whole_spec,
    whole_tree,
)

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}</style><a href='javascript:x'>"
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; notes every tag that is closed out of order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every `tag`."""
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        """All text of the page."""
        return "".join(self.texts)


def made(root: Path, tree: Any = None, spec: Any = None) -> tuple[str, dict[str, Any]]:
    """Build a report below `root`; return the page and the figures."""
    job = make_job(root, tree, spec)
    build(job)
    facts = json.loads((job.out / "scorecard.json").read_text(encoding="utf-8"))
    return (job.out / "index.html").read_text(encoding="utf-8"), facts


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The report of a recipe that has everything."""
    return made(tmp_path_factory.mktemp("whole"))


def test_page_is_well_formed_and_accessible(whole: tuple[str, dict[str, Any]]) -> None:
    page = Page(whole[0])
    assert page.wrong == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.having("a")]
    assert links
    assert {link for link in links if link and link[0] != "#"} == {"scorecard.json", "../report.html"}
    assert {link[1:] for link in links if link and link[0] == "#"} <= set(ids)
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") > 8
    assert [names.count(t) for t in ("h1", "main", "nav", "header", "footer")] == [1] * 5
    levels = [int(name[1]) for name in names if re.fullmatch("h[1-6]", name)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("role") in {"img", "group"} or a.get("aria-hidden") for a in page.having("svg"))


def test_page_needs_nothing_from_outside(whole: tuple[str, dict[str, Any]]) -> None:
    text = whole[0]
    assert len(text.encode()) < 300_000
    page = Page(text)
    assert not page.having("script")
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", text)
    assert not [a for _, a in page.tags if "src" in a]


def test_page_shows_the_figures_of_every_payload(whole: tuple[str, dict[str, Any]]) -> None:
    text = " ".join(Page(whole[0]).text.split())
    expected = ["1,200", "too short70", "47.6", "45.0", "97.1 %", "0.30909", "42/60", "+8.05", "at chance", "2.2000"]
    expected += ["the published file holds other items", "without private-forum", "Who keeps the lamp tonight?"]
    assert [figure for figure in expected if figure not in text] == []
    assert all(row["value"] in text for row in whole[1]["artifacts"])
    # For each fine-tune: loss for wide and for narrow screens, by source, learning rate, gradient norm; five maps of
    # the merge; one histogram a source.
    assert whole[0].count('class="chart"') == 2 * 5 + 5 + 3


def test_scorecard_figures(whole: tuple[str, dict[str, Any]]) -> None:
    facts = whole[1]
    shares = {s["source"]: s["share_percent"] for s in facts["mixtures"][0]["sources"]}
    assert shares == pytest.approx({"tales": 100 * 20 / 42, "letters": 100 * 14 / 42, "riddles": 100 * 8 / 42})
    assert facts["mixtures"][0]["share_of"] == "tokens"
    run = facts["trainings"][0]
    assert run["published_eval_loss"] == run["last_eval_loss"] < run["first_eval_loss"]
    ratios = {p["projection"]: (p["first_ratio"], p["last_ratio"]) for p in facts["merges"][0]["projections"]}
    assert ratios["self_attn.q_proj"] == pytest.approx((0.2, 0.2 + 0.6 * 12 / 15))
    assert ratios["mlp.down_proj"] == pytest.approx((0.8 - 0.6 * 2 / 11, 0.2))
    assert ratios["lm_head"] == (0.5, 0.5)
    marks = {(row["task"], row["model"]): (row["correct"], row["at_chance"]) for row in facts["benchmarks"]}
    assert marks["true-turn", "base"] == (28, True)
    assert marks["next-line", "base"] == (42, False)
    assert marks["truths", "base"] == (None, False)
    assert [row["value"] for row in facts["bits_per_byte"]] == pytest.approx([3.4, 3.0, 2.6, 2.2])


def test_published_loss_is_that_of_the_published_step(tmp_path: Path) -> None:
    files = train("tales-model", "base")
    summary = json.loads(files["train.json"])
    best = summary | {"published_step": summary["best_eval_step"]}
    _, facts = made(tmp_path, {"train/tales-model": {**files, "train.json": json.dumps(best)}})
    assert facts["trainings"][0]["published_eval_loss"] == summary["best_eval_loss"] < summary["last_eval_loss"]


@pytest.mark.parametrize(
    "kept",
    [
        ("clean/", "mix/"),
        ("clean/", "mix/", "pack/", "train/"),
        ("clean/", "mix/", "pack/", "train/", "merge/"),
        ("merge/", "benchmark/base/choices"),
        ("benchmark/base/held-out",),
        (),
    ],
)
def test_recipe_without_some_stages_still_gives_a_page(tmp_path: Path, kept: tuple[str, ...]) -> None:
    tree = {name: files for name, files in whole_tree().items() if name.startswith(kept)} if kept else {}
    text, _ = made(tmp_path, tree, whole_spec(lineage={}))
    page = Page(text)
    assert page.wrong == []
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for a in page.having("a") if (link := a["href"] or "").startswith("#")} <= ids


def test_rows_too_long_to_train_on_are_named_by_source(tmp_path: Path) -> None:
    text, _ = made(tmp_path, whole_tree(), whole_spec())
    assert f"{SOURCES[0]}: 3 of 903 training rows too long" in text


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    sources = (*SOURCES[:2], HOSTILE)
    tree = whole_tree()
    tree["mix/evening"] = mix("evening", sources)
    tree["pack/tales-model"] = pack("tales-model", "evening", sources)
    tree["train/tales-model"] = train("tales-model", "base", sources=sources)
    tree["benchmark/base/held-out"] = held_out("base", 2.0, sources)
    blend = json.loads(merge("tales-model", HOSTILE)["merge.json"])
    blend["tensors"][f"model.layers.0.{HOSTILE}.weight"] = {"ratio": 0.5}
    tree["merge/blend"] = {"merge.json": json.dumps(blend)}
    episode = {"id": HOSTILE, "label": "general", "system": HOSTILE, "turns": [{"role": HOSTILE, "text": HOSTILE}]}
    tree["clean/tales"] = clean("tales", kept=[episode], rejected={HOSTILE: [HOSTILE]})
    facts = SourceFacts(title=HOSTILE, license=HOSTILE, redistributable=True, known_problems=[HOSTILE])
    text, _ = made(tmp_path, tree, whole_spec(title=HOSTILE, sources=dict.fromkeys(SOURCES, facts)))
    page = Page(text)
    assert page.wrong == []
    assert not page.having("script")
    assert not page.having("img")
    assert not [a for _, a in page.tags if any(key.startswith("on") for key in a)]
    assert {a["href"] for a in page.having("a") if (a["href"] or "")[:1] != "#"} == {"scorecard.json", "../report.html"}
    assert page.text.count("{{ 7 * 7 }}") > 10
    assert text.count("</style>") == 1


def test_samples_that_may_not_be_published_are_withheld(tmp_path: Path) -> None:
    adult = {"id": "x", "label": "adult", "turns": [{"role": "model", "text": "text-of-the-label"}]}
    tree = {
        "clean/tales": clean("tales", kept=[adult], rejected={"adult_content": ["text-refused"], "too_short": ["Hm."]}),
        "clean/letters": clean("letters"),
    }
    closed = SourceFacts(title="Letters", license="unknown", redistributable=False, known_problems=[])
    text, _ = made(tmp_path, tree, whole_spec(sources={"tales": whole_spec().sources["tales"], "letters": closed}))
    assert "text-of-the-label" not in text
    assert "text-refused" not in text
    assert "Hm." in text
    assert "Who keeps the lamp tonight?" not in text
    assert "its rows may not be published again" in text


def test_texts_of_the_minors_gate_stop_the_report(tmp_path: Path) -> None:
    job = make_job(tmp_path, {"clean/tales": clean("tales", rejected={"minors_gate": ["something"]})})
    with pytest.raises(StageError, match=r"samples\.json.*minors_gate.*never be stored"):
        build(job)
    assert list(job.out.iterdir()) == []


@pytest.mark.parametrize(
    ("artifact", "file", "text", "message"),
    [
        ("mix/evening", "mix.json", "{", r"mix\.json: \(top level\): Invalid JSON"),
        ("mix/evening", "mix.json", "{}", r"mix\.json: mixture: Field required"),
        (
            "train/tales-model",
            "metrics.jsonl",
            '{"step": 1, "loss": NaN, "learning_rate": 1, "grad_norm": 1}\n',
            r"metrics\.jsonl:1: loss: .*finite",
        ),
        (
            "train/tales-model",
            "metrics.jsonl",
            '{"step": 1, "eval_loss": 2}\nnonsense\n',
            r"metrics\.jsonl:2: not JSON",
        ),
        ("train/tales-model", "metrics.jsonl", "[1]\n", r"metrics\.jsonl:1: "),
        ("clean/tales", "audit.json", '{"rows_in": "many"}', r"audit\.json: rows_in: .*found 'many'"),
        ("benchmark/base/choices", "results.json", None, r"results\.json: cannot be read"),
        (
            "merge/blend",
            "merge.json",
            '{"models": [], "tensors": {"a": {"ratio": "x"}}}',
            r"tensors\.a\.ratio: .*found 'x'",
        ),
    ],
)
def test_damaged_payload_is_one_clear_error(
    tmp_path: Path, artifact: str, file: str, text: str | None, message: str
) -> None:
    job = make_job(tmp_path)
    path = job.inputs[artifact] / file
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match=message) as error:
        build(job)
    assert str(path) in str(error.value)
    assert "rebuild the artifact" in str(error.value)


def test_same_bytes_in_another_process(tmp_path: Path, root: Path) -> None:
    names = ("index.html", "scorecard.json")
    program = (
        "import hashlib, sys; from pathlib import Path; from tests.unit.report_fixtures import make_job;"
        "from scripts.report.build import build; job = make_job(Path(sys.argv[1])); build(job);"
        f"print(*(hashlib.sha256((job.out / n).read_bytes()).hexdigest() for n in {names}))"
    )
    other = tmp_path / "else where"
    other.mkdir()
    changes = {"PYTHONPATH": str(root), "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    command = [sys.executable, "-c", program, str(other)]
    done = subprocess.run(command, env=os.environ | changes, cwd=other, check=True, capture_output=True, text=True)
    job = make_job(tmp_path / "here")
    build(job)
    assert done.stdout.split() == [hashlib.sha256((job.out / n).read_bytes()).hexdigest() for n in names]


def test_drawing_does_not_depend_on_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    series = [charts.Series("one", [(x, 1 / (x + 1)) for x in range(40)])]
    cells = [charts.Cell(layer, part, 0.5, 0.5) for layer in range(40) for part in PARTS]

    def drawings(font: str) -> list[str]:
        monkeypatch.setattr(charts, "FONT", font)
        drawn = [
            charts.line_chart(series, "step", "label"),
            charts.heat_map(cells, PARTS, charts.EVEN, "label", 600),
            charts.histogram([(64, 3), (128, 9)], "characters, up to", "label"),
        ]
        return [svg.replace(f'"{font}"', '"any"') for svg in drawn]

    assert drawings("monospace") == drawings("Liberation Sans") == drawings("A font nobody has")


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_colours_can_be_told_from_what_is_behind_them(theme: str) -> None:
    css = str(style())
    parts = {"light": css, "dark": css.split("prefers-color-scheme: dark")[1], "print": css.split("@media print")[1]}
    found = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{3,6})", parts[theme].split("@page")[0].split("* {")[0]))
    colours = {key: "#" + "".join(2 * c for c in hexa[1:]) if len(hexa) == 4 else hexa for key, hexa in found.items()}
    text = [(ink, back) for ink in ("ink", "soft", "accent") for back in ("page", "card", "tint")]
    text += [("warn", "warn-tint"), ("ink", "plus"), ("ink", "minus"), ("s0", "card"), ("s2", "card")]
    marks = [(f"s{i}", "card") for i in range(charts.COLOURS)]
    weak = [pair for pair in text if charts.contrast(colours[pair[0]], colours[pair[1]]) < 4.5]
    assert weak + [pair for pair in marks if charts.contrast(colours[pair[0]], colours[pair[1]]) < 3] == []


@pytest.mark.parametrize("ramp", [charts.EVEN, charts.FAR])
def test_figures_on_a_heat_map_can_be_read(ramp: tuple[str, ...]) -> None:
    assert [charts.shade(ramp, i / (len(ramp) - 1)) for i in range(len(ramp))] == list(ramp)
    shades = [charts.shade(ramp, place / 100) for place in range(-5, 106)]
    assert min(max(charts.contrast(s, ink) for ink in charts.INKS) for s in shades) >= 4.5
    assert charts.contrast("#000000", "#ffffff") == pytest.approx(21)
    cells = [charts.Cell(layer, "q", layer / 4, layer / 4) for layer in range(5)]
    svg = charts.heat_map(cells, ["q"], ramp, "label", 300)
    assert all(fill in svg for fill in ramp)


def test_many_series_stay_distinct_and_labels_are_plain_numbers() -> None:
    looks = {(charts.colour(i), tuple(charts.dash(i))) for i in range(24)}
    assert len(looks) == 24
    svg = charts.line_chart([charts.Series("one", [(0, 1.5), (3000, 10.5)])], "step", "label")
    labels = re.findall(r"<text[^>]*>([^<]+)</text>", svg)
    assert {"0", "1,000", "3,000", "2", "10", "step"} <= set(labels)


def test_long_runs_are_thinned_and_say_so(tmp_path: Path) -> None:
    points = [(float(i), float(i)) for i in range(1441)]
    thin, each = charts.thin_out(points)
    assert (len(thin), each) == (481, 3)
    assert thin[0] == (1.0, 1.0)
    assert thin[-1] == (1440.0, 1440.0)
    text, _ = made(tmp_path, {"train/tales-model": train("tales-model", "base", steps=3000)})
    assert "each training point is the mean of 5 steps" in text
    assert len(text) < 300_000


def test_a_merge_is_described_by_its_method(tmp_path: Path) -> None:
    content = json.loads(merge("tales-model", "letters-model")["merge.json"]) | {"overflowed": 1, "flushed": 2}
    for method, said in (("linear", "(1 − r) · first + r · second"), ("slerp", "slerp(first, second; r)")):
        tree = {"merge/blend": {"merge.json": json.dumps({**content, "method": method})}}
        text, facts = made(tmp_path / method, tree)
        assert said in text and facts["merges"][0]["method"] == method
        assert ("straight line" in text) == ("Way from tales-model to letters-model" in text) == (method == "slerp")
        line = _merges(facts).title
        assert (line == "merge  blend = slerp(tales-model, letters-model; r)") == (method == "slerp")
    assert "1 value was too large for the output's number format (overflow), 2 were so small" in html.unescape(text)


def test_tensor_names_fall_into_layers_and_projections() -> None:
    assert split_tensor("model.layers.12.self_attn.q_proj.weight") == (12, "self_attn.q_proj")
    assert split_tensor("model.layers.0.input_layernorm.weight") == (0, "input_layernorm")
    assert split_tensor("model.norm.weight") == (None, "norm")
    assert split_tensor("lm_head.weight") == (None, "lm_head")
    assert projection_order(["new.part", *reversed(PARTS), "new.part"]) == [*PARTS, "new.part"]


def test_lineage_places_every_artifact_right_of_its_inputs() -> None:
    spec = whole_spec()
    parents = parents_of(spec.lineage, spec.models)
    drawing = draw(parents, {"merge/blend": "f" * 64})
    place = {node.artifact: node for node in drawing.nodes}
    assert all(place[a].x + NODE_WIDTH < place[b].x for a, b, _, _ in drawing.edges)
    assert len(drawing.edges) == sum(map(len, parents.values()))
    assert len({(node.x, node.y) for node in drawing.nodes}) == len(drawing.nodes) == len(place)
    assert place["merge/blend"].value == "f" * 64
    assert all(n.x >= 0 and n.x + NODE_WIDTH <= drawing.width and n.y < drawing.height for n in drawing.nodes)
    assert draw(parents_of({}, spec.models), {}).nodes[0].artifact == "create/base"
    assert draw({}, {}).nodes == []


def test_measuring_is_no_part_of_a_models_lineage(whole: tuple[str, dict[str, Any]]) -> None:
    graph = re.search(r'<svg class="graph".*?</svg>', whole[0], re.S)
    assert graph is not None
    assert "#artifact-merge--blend" in graph[0]
    assert "benchmark/" not in graph[0]
