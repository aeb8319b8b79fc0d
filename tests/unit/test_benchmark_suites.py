"""The announcement's rows: readers of every published format, the old harness' shots, lm-eval's own tasks offline."""

import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from scripts.artifact.stage import StageError
from scripts.benchmark.formats import questions, truthfulqa
from scripts.benchmark.items import Item, chance_variance, items_sha256
from scripts.benchmark.output import Sample, TaskResult, groups_of
from scripts.benchmark.render import Format, form_of, render
from scripts.benchmark.shots import historical_shots, with_shots
from scripts.recipe.benchmark import BenchmarkSpec, Task
from scripts.recipe.models import Suite
from scripts.recipe.published import Published
from tests.conftest import ROOT
from tests.unit.benchmark_tiny_model import write_model
from tests.unit.report_fixtures import finish

REAL = Path(os.environ["ATELIER_REAL_DATA"]) / "benchmarks"
SUITES = {p.stem: Suite.model_validate(yaml.safe_load(p.read_text())) for p in (ROOT / "config/suites").glob("*.yaml")}
PUBLISHED = {
    p.stem: Published.model_validate(yaml.safe_load(p.read_text())) for p in (ROOT / "config/published").glob("*.yaml")
}


def real(path: str) -> Path:
    if not (REAL / path).exists():
        pytest.skip(f"{REAL / path} is absent; set ATELIER_REAL_DATA")
    return REAL / path


def jsonl(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def parquet(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


ARC = {
    "id": "a1",
    "question": "What floats on water?",
    "choices": {"text": ["a stone", "a cork", "a nail"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
HELLASWAG = {
    "activity_label": "Baking",
    "ctx_a": "[header] How to bake bread [title] Warm the oven.",
    "ctx_b": "the baker",
    "endings": ["waits.  Then he sings.", "[step] flies.", "melts.", "sleeps."],
    "label": "0",
}
MMLU = {"question": " Two plus two? ", "subject": "plain_sums", "choices": ["3", "4", "5", "6"], "answer": 1}


def test_the_shots_are_one_stream_of_the_old_generator() -> None:
    stream = random.Random(42)
    order = list(range(5))
    stream.shuffle(order)
    train = [f"t{i}" for i in range(40)]
    expected = [(doc, stream.sample(train, 25)) for doc in order]
    found = [(doc, [train[i] for i in picked]) for doc, picked in historical_shots(5, 40, 25)]
    assert found == expected
    # Golden: another Python must not shuffle otherwise.
    assert historical_shots(5, 9, 2) == [(3, [3, 8]), (1, [2, 1]), (2, [8, 1]), (4, [6, 0]), (0, [0, 1])]
    with pytest.raises(StageError, match="needs 25 solved examples, found 3"):
        historical_shots(5, 3, 25)
    assert with_shots(["a b", "c d"], "e", "top") == "top\n\na b\n\nc d\n\ne"


def test_arc_in_three_forms_is_one_question(tmp_path: Path) -> None:
    pairs = [{"text": t, "label": n} for t, n in zip(ARC["choices"]["text"], "ABC", strict=True)]  # type: ignore[index]
    files = [
        parquet(tmp_path / "hub.parquet", ARC),
        jsonl(tmp_path / "ai2.jsonl", {"question": {"stem": ARC["question"], "choices": pairs}, "answerKey": "B"}),
        jsonl(
            tmp_path / "ready.jsonl",
            {"query": f"Question: {ARC['question']}", "choices": ARC["choices"]["text"], "gold": 1},  # type: ignore[index]
        ),
    ]
    found = [questions.read_arc(path)[0] for path in files]
    assert {(q.text, q.choices, q.gold) for q in found} == {
        ("Question: What floats on water?\nAnswer:", ("a stone", "a cork", "a nail"), 1)
    }
    assert found[0].solved() == "Question: What floats on water?\nAnswer: a cork"


def test_hellaswag_loses_its_marks(tmp_path: Path) -> None:
    (question,) = questions.read_hellaswag(jsonl(tmp_path / "h.jsonl", HELLASWAG))
    assert question.text == "Baking:  How to bake bread. Warm the oven. The baker".replace(":  ", ": ")
    assert question.choices == ("waits. Then he sings.", " flies.", "melts.", "sleeps.") and question.gold == 0


def test_mmlu_in_three_forms_and_its_shots(tmp_path: Path) -> None:
    hub = parquet(tmp_path / "hub.parquet", MMLU)
    named, bare = tmp_path / "plain_sums_test.csv", tmp_path / "plain_sums_dev.csv"
    named.write_text('question,choice0,choice1,choice2,choice3,answer\n" Two plus two? ",3,4,5,6,1\n')
    bare.write_text(" Two plus two? ,3,4,5,6,B\n" * 6)
    found = [questions.read_mmlu(path)[0] for path in (hub, named, bare)]
    assert len({(q.text, q.choices, q.gold, q.subject) for q in found}) == 1
    task = Task(format="mmlu", file="hub.parquet", shots=5, shots_file="plain_sums_dev.csv")
    (item,) = render("mmlu_plain_sums", task, tmp_path)
    shot = "Two plus two?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer: B"
    head = "The following are multiple choice questions (with answers) about plain sums."
    assert item.context == "\n\n".join([head, *[shot] * 5, shot.removesuffix(" B")])
    assert item.requests()[1] == (item.context, " B")
    with pytest.raises(StageError, match="needs 7 solved examples, found 6"):
        render("m", task.model_copy(update={"shots": 7}), tmp_path)


def test_shots_come_before_the_question_and_limit_follows_the_old_order(tmp_path: Path) -> None:
    parquet(tmp_path / "test.parquet", *({**ARC, "question": f"q{i}?"} for i in range(6)))
    parquet(tmp_path / "train.parquet", *({**ARC, "question": f"t{i}?"} for i in range(9)))
    task = Task(format="arc", file="test.parquet", shots=2, shots_file="train.parquet", expect_items=6)
    items = render("arc", task, tmp_path)
    order = historical_shots(6, 9, 2)
    first, picked = order[0]
    shots = [f"Question: t{i}?\nAnswer: a cork" for i in picked]
    assert items[0].context == "\n\n".join([*shots, f"Question: q{first}?\nAnswer:"])
    assert render("arc", task.model_copy(update={"limit": 2}), tmp_path) == items[:2]
    with pytest.raises(StageError, match="found 6 items, expect_items is 5"):
        render("arc", task.model_copy(update={"expect_items": 5}), tmp_path)
    assert form_of("arc", task).bos is False


def test_boolq_openbookqa_piqa_and_winogrande(tmp_path: Path) -> None:
    passage = {"passage": "Snow is cold.", "question": "is snow cold", "label": 1}
    (boolq,) = questions.read_boolq(jsonl(tmp_path / "b.jsonl", passage))
    assert (boolq.text, boolq.choices, boolq.gold) == (
        "Snow is cold.\nQuestion: is snow cold?\nAnswer:",
        ("no", "yes"),
        1,
    )
    published = {k: v for k, v in passage.items() if k != "label"} | {"answer": True}
    assert questions.read_boolq(jsonl(tmp_path / "b2.jsonl", published))[0].gold == 1
    row = {"question_stem": "Rain makes", "choices": {"text": ["mud", "sand"], "label": ["A", "B"]}, "answerKey": "A "}
    (openbook,) = questions.read_openbookqa(jsonl(tmp_path / "o.jsonl", row))
    assert (openbook.text, openbook.gold) == ("Rain makes", 0)
    (piqa,) = questions.read_piqa(
        jsonl(tmp_path / "p.jsonl", {"goal": "Dry a cup", "sol1": "Wipe it.", "sol2": "Wipe it.", "label": 1})
    )
    assert piqa.item(piqa.text).requests()[1] == ("Question: Dry a cup\nAnswer:", " Wipe it.")
    row = {"sentence": "Mira waved at Pip since _ was late.", "option1": "Mira", "option2": "Pip", "answer": "2"}
    (wino,) = questions.render_winogrande(jsonl(tmp_path / "w.jsonl", row))
    assert wino.requests() == [(f"Mira waved at Pip since {name}", " was late.") for name in ("Mira", "Pip")]
    assert wino.gold == 1
    with pytest.raises(StageError, match="needs one `_`"):
        questions.render_winogrande(jsonl(tmp_path / "w.jsonl", {**row, "answer": ""}))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ARC, "answerKey": "9"}, "answer: found None with 3 choices"),
        ({**ARC, "choices": "ab"}, "must be a table of text and label"),
        ({**ARC, "choices": {"text": ["a"], "label": ["A", "B"]}}, "1 texts and 2 labels"),
        ({**ARC, "question": 3}, "question: found 3"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match="a.jsonl:2") as caught:
        questions.read_arc(jsonl(tmp_path / "a.jsonl", ARC, row))
    assert said in str(caught.value)


def test_truthfulqa_with_the_leaderboards_preamble_and_old_rule(tmp_path: Path) -> None:
    targets = {"Blue.": 1, "Red.": 0, "Azure.": 1}
    path = tmp_path / "mc_task.json"
    path.write_text(json.dumps([{"question": "What colour?", "mc1_targets": targets, "mc2_targets": targets}]))
    (new,), (old,) = truthfulqa.render_mc2(path), truthfulqa.render_ollv1_mc2(path)
    assert (new.labels, old.labels) == ((1.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    assert old.context == truthfulqa.preamble() + new.context and truthfulqa.preamble().count("Q: ") == 6
    assert truthfulqa.render_ollv1_mc1(path)[0].gold == 0


def test_real_arc_mmlu_and_truthfulqa_have_the_published_numbers() -> None:
    assert len(questions.read_arc(real("arc_challenge.jsonl"))) == 1172
    old = truthfulqa.render_ollv1_mc2(real("truthfulqa/mc_task.json"))
    new = truthfulqa.render_mc2(real("truthfulqa/mc_task.json"))
    assert len(old) == 817 == len(truthfulqa.render_ollv1_mc1(real("truthfulqa/mc_task.json")))
    assert sum(a.labels != b.labels for a, b in zip(old, new, strict=True)) == 2
    suite = SUITES["open-llm-leaderboard-v1"]
    for path in sorted(real("mmlu/test").glob("*_test.csv")):
        subject = path.stem.removesuffix("_test")
        task = suite.tasks[f"mmlu_{subject}"]
        files = {"file": f"test/{path.name}", "shots_file": f"dev/{subject}_dev.csv"}
        items = render(subject, task.model_copy(update=files), REAL / "mmlu")
        assert len(items) == task.expect_items
        assert items[0].context.startswith(
            f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}."
        )
        assert items[0].context.count("Answer:") == 6


def test_every_row_of_the_announcement_has_a_task_of_both_kinds() -> None:
    tables = PUBLISHED["pygmalion-2-7b"].tables
    for stem in ("open-llm-leaderboard-v1", "agieval", "big-bench", "gpt4all"):
        historical = SUITES[stem]
        assert historical.published_table is not None and historical.protocol
        for name, row in tables[historical.published_table].tasks.items():
            members = [t for n, t in historical.tasks.items() if n == name or t.group == name]
            assert sum(t.expect_items or 0 for t in members) == row.items, name
            assert {t.shots for t in members} == {row.shots}, name
    mmlu = [t for t in SUITES["open-llm-leaderboard-v1"].tasks.values() if t.group == "mmlu"]
    native = [t for t in SUITES["open-llm-leaderboard-v1-native"].tasks.values() if t.group == "mmlu"]
    assert len(mmlu) == len(native) == 57 and [t.expect_items for t in mmlu] == [t.expect_items for t in native]
    for stem in ("open-llm-leaderboard-v1", "gpt4all", "agieval"):
        assert set(SUITES[stem].tasks) == set(SUITES[f"{stem}-native"].tasks)
    bug = SUITES["big-bench"].tasks["bigbench_tracking_shuffled_objects_three_objects"].upstream_bug
    assert "logical_deduction_three_objects" in bug


def test_a_model_that_fails_verification_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "results" / "mini" / "create" / "tiny"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    finish(model, "create/tiny")
    (model / "model.safetensors").write_bytes(b"Weights")
    spec = BenchmarkSpec(model="tiny", suite="s", tasks={"t": Task(format="bits_per_byte")}, device="cpu")
    command = [sys.executable, "-m", "scripts.benchmark", "--spec", spec.model_dump_json()]
    command += ["--inputs", str(model / "SHA256SUMS")]
    command += ["--output", str(tmp_path / "results/mini/benchmark/tiny/s/SHA256SUMS")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1 and "refusing to use a damaged artifact" in done.stderr
    assert not (tmp_path / "results/mini/benchmark/tiny/s").exists()


def test_groups_are_plain_and_weighted_means() -> None:
    def result(value: float, items: int, group: str | None) -> TaskResult:
        samples = [Sample(0, 0, [0.0])] * items
        return TaskResult("mmlu", "", {"acc": (value, 0.1)}, 0.25, 0, "", samples, group=group)

    rows = groups_of({"a": result(0.5, 1, "g"), "b": result(0.8, 3, "g"), "c": result(0.1, 9, None)})
    assert rows["g"]["items"] == 4 and rows["g"]["tasks"] == ["a", "b"]
    metrics: Any = rows["g"]["metrics"]
    assert metrics["acc"]["value"] == pytest.approx(0.65) and metrics["acc_weighted"]["value"] == pytest.approx(0.725)
    assert metrics["acc"]["stderr"] == pytest.approx(0.1 / 2**0.5) and metrics["acc"]["chance"] == 0.25


def test_digest_and_chance_of_new_items() -> None:
    plain = Item("a", ("b", "c"), 0, (1.0, 0.0))
    ends = Item("", ("b", "c"), 0, (1.0, 0.0), " ", ("x b", "x c"), "rest")
    assert "contexts" not in plain.record() and items_sha256([plain]) != items_sha256([ends])
    assert chance_variance([plain, Item("a", ("b", "c", "d", "e"), 0, (1.0, 0, 0, 0))]) == pytest.approx(
        (0.25 + 0.1875) / 2
    )


README = """---
configs:
- config_name: ARC-Challenge
  data_files:
  - {split: train, path: ARC-Challenge/train-*}
  - {split: test, path: ARC-Challenge/test-*}
- config_name: absent
  data_files:
  - {split: test, path: absent/test-*}
---
"""


def hub_folder(root: Path) -> Path:
    letters = {"text": ["a stone", "a cork", "a nail"], "label": ["A", "B", "C"]}
    for split, count in (("train", 5), ("test", 4)):
        rows = [
            {**ARC, "id": f"{split}{i}", "question": f"{split} {i}?", "choices": letters, "answerKey": "ABC"[i % 3]}
            for i in range(count)
        ]
        parquet(root / "ARC-Challenge" / f"{split}-00000-of-00001.parquet", *rows)
    (root / "README.md").write_text(README)
    return root


def test_lm_evals_own_task_is_read_offline_from_a_hub_shaped_folder(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "ai2-arc")
    task = Task(format="lm_eval", lm_eval="arc/arc_challenge.yaml", dataset="ai2-arc", shots=2, expect_items=4)
    items = render("arc_challenge", task, folder)
    assert [item.gold for item in items] == [0, 1, 2, 0]
    assert items[0].context.endswith("\n\nQuestion: test 0?\nAnswer:") and items[0].context.count("train") == 2
    assert items == render("arc_challenge", task, folder)
    zero = render("arc_challenge", task.model_copy(update={"shots": 0}), folder)
    historical = Task(format="arc", file="ARC-Challenge/test-00000-of-00001.parquet")
    assert zero == render("arc_challenge", historical, folder)  # zero-shot, both protocols have the same prompts
    with pytest.raises(StageError, match="has no task file arc/none.yaml"):
        render("x", task.model_copy(update={"lm_eval": "arc/none.yaml"}), folder)
    with pytest.raises(StageError, match="lm-eval can't load arc/arc_easy.yaml"):
        render("x", task.model_copy(update={"lm_eval": "arc/arc_easy.yaml"}), folder)


def test_lm_evals_winogrande_and_mc2_are_frozen_alike(tmp_path: Path) -> None:
    rows = [
        {
            "sentence": f"Pip saw Mira {i} times, for _ waved.",
            "option1": "Pip",
            "option2": "Mira",
            "answer": str(1 + i % 2),
        }
        for i in range(3)
    ]
    for split in ("train", "validation"):
        parquet(tmp_path / "wino" / "winogrande_xl" / f"{split}-00000-of-00001.parquet", *rows)
    header = "---\nconfigs:\n- config_name: {}\n  data_files:\n  - {{split: validation, path: {}/validation-*}}\n"
    names = "winogrande_xl", "multiple_choice"
    more = "  - {split: train, path: winogrande_xl/train-*}\n"
    (tmp_path / "wino" / "README.md").write_text(header.format(names[0], names[0]) + more + "---\n")
    native = render("w", Task(format="lm_eval", lm_eval="winogrande/default.yaml", dataset="w"), tmp_path / "wino")
    file = "winogrande_xl/validation-00000-of-00001.parquet"
    assert [item.requests() for item in native] == [
        item.requests() for item in render("w", Task(format="winogrande", file=file), tmp_path / "wino")
    ]
    assert [item.gold for item in native] == [0, 1, 0]
    targets = {"choices": ["Blue.", "Red.", "Azure."], "labels": [1, 0, 1]}
    row = {"question": "What colour?", "mc1_targets": targets, "mc2_targets": targets}
    parquet(tmp_path / "tqa" / "multiple_choice" / "validation-00000-of-00001.parquet", row)
    (tmp_path / "tqa" / "README.md").write_text(header.format(names[1], names[1]) + "---\n")
    task = Task(format="lm_eval_mc2", lm_eval="truthfulqa/truthfulqa_mc2.yaml", dataset="t")
    (item,) = render("t", task, tmp_path / "tqa")
    assert item.labels == (1.0, 0.0, 1.0) and item.context == truthfulqa.preamble() + "Q: What colour?\nA:"


def scored(model: Any, name: str, items: list[Item], form: Format) -> tuple[list[list[float]], Any]:
    """Return the likelihoods of a task's items, and what lm-eval makes of them, as the stage does."""
    from scripts.benchmark.metrics import grade

    model.use_bos(form.bos)
    values = [[value for value, _ in item] for item in model.score_items([item.requests() for item in items])]
    return values, grade(items, form, values)


def test_frozen_native_items_score_as_lm_eval_scores_its_own_task(tmp_path: Path) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from scripts.benchmark.model import load_model

    folder, model_folder = hub_folder(tmp_path / "ai2-arc"), write_model(tmp_path / "model")
    task = Task(format="lm_eval", lm_eval="arc/arc_challenge.yaml", dataset="ai2-arc", shots=2)
    spec = BenchmarkSpec(model="m", suite="s", tasks={"arc": task}, device="cpu", dtype="float32", batch_size=4)
    items = render("arc", task, folder)
    values, ours = scored(load_model(model_folder, spec), "arc", items, form_of("arc", task))

    stock = Path(str(find_spec("lm_eval").submodule_search_locations[0])) / "tasks" / "arc" / "arc_challenge.yaml"  # type: ignore[union-attr,index]
    index = tmp_path / "index"
    index.mkdir()
    config = {"include": str(stock), "task": "stock", "dataset_path": str(folder), "tag": None}
    config["dataset_kwargs"] = {"cache_dir": str(tmp_path / "cache")}
    (index / "stock.yaml").write_text(yaml.safe_dump(config))
    peer = HFLM(pretrained=str(model_folder), device="cpu", dtype="float32", batch_size=4, max_length=256)
    manager = TaskManager(include_path=str(index), include_defaults=False)
    theirs = simple_evaluate(peer, tasks=["stock"], num_fewshot=2, task_manager=manager, bootstrap_iters=0)
    assert theirs is not None
    for metric in ("acc", "acc_norm"):
        assert ours.metrics[metric][0] == theirs["results"]["stock"][f"{metric},none"]
    samples = sorted(theirs["samples"]["stock"], key=lambda sample: sample["doc_id"])
    expected = [[ll for ll, _ in sample["filtered_resps"]] for sample in samples]
    for found, wanted in zip(values, expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert [s["acc_norm"] for s in ours.scores] == [s["acc_norm"] for s in samples]


def test_winogrande_is_scored_by_the_rest_of_the_sentence(tmp_path: Path) -> None:
    from scripts.benchmark.model import load_model

    rows = [
        {"sentence": f"Pip saw Mira {i} times, for _ waved.", "option1": "Pip", "option2": "Mira", "answer": "1"}
        for i in range(3)
    ]
    jsonl(tmp_path / "w.jsonl", *rows)
    task = Task(format="winogrande", file="w.jsonl")
    spec = BenchmarkSpec(model="m", suite="s", tasks={"w": task}, device="cpu", dtype="float32", batch_size=4)
    model = load_model(write_model(tmp_path / "model"), spec)
    values, found = scored(model, "w", render("w", task, tmp_path), form_of("w", task))
    right = [float(ll[0] >= ll[1]) for ll in values]
    assert [s["acc"] for s in found.scores] == right and list(found.metrics) == ["acc"]
    assert found.metrics["acc"][0] == pytest.approx(sum(right) / 3)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"format": "lm_eval"}, "lm_eval names the YAML of a task"),
        ({"format": "lm_eval", "lm_eval": "a.yaml"}, "needs dataset"),
        ({"format": "arc", "file": "a.jsonl", "shots": 3}, "needs shots_file"),
        ({"format": "arc", "file": "a.jsonl", "shots_file": "b.jsonl"}, "shots is 0"),
    ],
)
def test_tasks_that_cannot_be_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Task.model_validate(fields)
