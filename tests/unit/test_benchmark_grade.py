"""Grades, the GRIM test of published figures, and the check of model folders: nothing here loads a model."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scripts.artifact.stage import StageError
from scripts.benchmark.folder import check_model_folder
from scripts.benchmark.grade import argmax, mc2, tie_argmax
from scripts.benchmark.grim import check_published, consistent_counts, main
from scripts.benchmark.heldout import Row, bits_per_byte

PUBLISHED = Path(__file__).resolve().parents[2] / "config" / "published"


@given(st.lists(st.sampled_from([-1.0, -2.5, -3.25]), min_size=2, max_size=7))
def test_ties_are_broken_by_the_digest_of_all_values(values: list[float]) -> None:
    ties = np.flatnonzero(np.asarray(values) == np.max(values))
    position = int(hashlib.sha256(np.asarray(values).tobytes()).hexdigest(), 16) % len(ties)
    assert tie_argmax(values) == ties[position]
    assert argmax(values) == int(np.argmax(values))


def test_ties_do_not_always_fall_to_the_first() -> None:
    assert {tie_argmax([x, x, x]) for x in (-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0)} == {0, 1, 2}


def test_mc2_is_the_share_of_true_probability() -> None:
    values = [math.log(p) for p in (0.1, 0.3, 0.2, 0.2)]
    assert mc2(values, [1, 0, 1, 0]) == pytest.approx(0.3 / 0.8, abs=1e-15)
    assert mc2([-2000.0, -2000.0], [1, 0]) == 0.5  # exp underflows without the shift
    assert mc2([0.0, -2000.0], [1, 0]) == 1.0


def test_all_published_accuracies_pass_grim() -> None:
    verdicts = check_published(yaml.safe_load((PUBLISHED / "pygmalion-2-7b.yaml").read_text()))
    assert len(verdicts) == 41 and all(verdict.passed for verdict in verdicts)


def test_grim_tells_wrong_item_counts_apart() -> None:
    assert consistent_counts(0.3500, 0.0276, 300) == (105,)
    assert consistent_counts(0.3500, 0.0276, 750) == ()  # the real three-objects task
    assert consistent_counts(0.2889, 0.0159, 790) == ()  # TruthfulQA of today
    assert consistent_counts(0.0, 0.0, 50) == (0,) and consistent_counts(1.0, 0.0, 50) == (50,)
    assert consistent_counts(1.0, 0.0, 1) == ()  # a single item has no standard error
    assert consistent_counts(1.0, None, 1) == (1,) and consistent_counts(0.35, None, 300) == (105,)
    assert consistent_counts(0.3507, None, 300) == ()


def test_grim_command_fails_on_a_wrong_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(PUBLISHED / "pygmalion-2-7b.yaml")]) == 0
    content = yaml.safe_load((PUBLISHED / "pygmalion-2-7b.yaml").read_text())
    content["tables"]["bigbench"]["tasks"]["bigbench_snarks"]["metrics"]["multiple_choice_grade"]["value"] = 0.4700
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main([str(path)]) == 1
    assert "41 values tested, 1 inconsistent" in capsys.readouterr().out
    row = content["tables"]["bigbench"]["tasks"]["bigbench_snarks"]
    row["metrics"]["multiple_choice_grade"] = {"value": 0.4696, "correct": 85}  # printed without an error
    path.write_text(yaml.safe_dump(content))
    assert main([str(path)]) == 0
    row["items"] = 1
    row["metrics"]["multiple_choice_grade"] = {"value": 1.0, "stderr": 0.0, "correct": 1}
    path.write_text(yaml.safe_dump(content))
    assert main([str(path)]) == 1
    assert "41 values tested, 1 inconsistent" in capsys.readouterr().out
    path.write_text("tables: 3\n")
    assert main([str(path)]) == 1


def test_bits_per_byte_is_a_ratio_of_sums_with_an_error_by_row() -> None:
    rows = [Row("a", "1", "é"), Row("a", "2", "abcdef"), Row("b", "3", "ab")]
    found = bits_per_byte(rows, [-2 * math.log(2), -18 * math.log(2), -2 * math.log(2)])
    assert found["bits_per_byte"][0] == pytest.approx(22 / 10)
    value, error = found["bits_per_byte/a"]
    assert value == pytest.approx(20 / 8) and error is not None
    residuals = [(2 - 2.5 * 2) ** 2, (18 - 2.5 * 6) ** 2]
    assert error == pytest.approx(math.sqrt(2 * sum(residuals)) / 8)
    value, error = found["bits_per_byte/b"]
    assert value == pytest.approx(1.0) and error is None


def model_folder(folder: Path, **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")  # valid: no tensors
    return folder


def test_a_plain_model_folder_is_accepted(tmp_path: Path) -> None:
    assert check_model_folder(model_folder(tmp_path, trust_remote_code=False))["model_type"] == "llama"


@pytest.mark.parametrize(
    "config",
    [
        {"auto_map": {"AutoModelForCausalLM": "modeling.Evil"}},
        {"text_config": {"auto_map": {"AutoConfig": "c.C"}}},
        {"custom_pipelines": {"x": {"impl": "p.P"}}},
        {"trust_remote_code": True},
    ],
)
def test_settings_that_ask_for_code_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(StageError, match="asks for remote code"):
        check_model_folder(model_folder(tmp_path, **config))


def test_code_files_pickles_and_foreign_tokenizers_are_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["t.T", null]}}')
    with pytest.raises(StageError, match=r"tokenizer_config\.json: auto_map"):
        check_model_folder(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "modeling.py").write_text("")
    with pytest.raises(StageError, match="code in a model folder"):
        check_model_folder(folder)
    (folder / "modeling.py").unlink()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(StageError, match="benchmarks read safetensors only"):
        check_model_folder(folder)
