"""explain, diff and lineage: what changed, in words, from records alone."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.artifact import explain as module
from scripts.artifact.differ import differences
from scripts.artifact.digest import RECORD, SUMS, ArtifactError, format_sums, hash_files, payload_files, sha256_file
from scripts.artifact.explain import explain
from scripts.artifact.lineage import lineage
from scripts.artifact.record import key_of, write_record
from scripts.recipe.base import Spec
from scripts.recipe.graph import Job


class Settings(Spec):
    """A spec for tests."""

    rate: float = 0.5
    names: tuple[str, ...] = ("a", "b")


def made(root: Path, name: str, files: dict[str, Any], **fields: Any) -> Path:
    """Write an artifact by hand, as the door would."""
    folder = root / name
    folder.mkdir(parents=True)
    for path, content in files.items():
        if path.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(content), folder / path)
        else:
            (folder / path).write_text(content)
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))))
    key = {"stage": name.split("/")[0], "spec": Settings().identity(), "code": "c" * 64, "lock": "d" * 64, "inputs": []}
    key |= {k: v for k, v in fields.items() if k in key}
    more = {k: v for k, v in fields.items() if k not in key}
    record = {**key, "name": name, "key": key_of(key), "value": sha256_file(folder / SUMS), "bytes": 1, "tensors": {}}
    write_record(folder / RECORD, {**record, "counts": {}, **more})
    write_record(folder / "provenance.json", {})
    return folder


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download and a clean made from it, of code and packages that `now` changes."""
    root = tmp_path / "results" / "r"
    parts = {"modules": {"scripts/clean/rows.py": "1" * 64}, "packages": {"numpy": "1.0", "old": "1"}}
    source = made(root, "download/one", {"a.txt": "hello"})
    inputs = [["download/one", sha256_file(source / SUMS)]]
    made(root, "clean/one", {"b.txt": "hello"}, inputs=inputs, **parts)
    now(monkeypatch, "c" * 64, {"scripts/clean/rows.py": "1" * 64}, "d" * 64, {"numpy": "1.0", "old": "1"})
    return root


def now(monkeypatch: pytest.MonkeyPatch, code: str, files: dict[str, str], lock: str, packages: dict[str, str]) -> None:
    """Say what code and packages there are now."""
    monkeypatch.setattr(module, "stage_code", lambda _: code)
    monkeypatch.setattr(module, "module_digests", lambda _: files)
    monkeypatch.setattr(module, "stage_lock", lambda _: lock)
    monkeypatch.setattr(module, "pins", lambda _: packages)


def told(results: Path, **spec: Any) -> list[str]:
    """Explain the clean artifact."""
    download, clean = ("download", "one"), ("clean", "one")
    jobs = {download: Job(*download, Settings(), ()), clean: Job(*clean, Settings(**spec), (download,))}
    return [str(reason) for reason in explain(SimpleNamespace(jobs=jobs), results, clean)]  # type: ignore[arg-type]


def test_nothing_changed_is_up_to_date(results: Path) -> None:
    assert told(results) == []


def test_a_setting_is_named_with_both_values(results: Path) -> None:
    assert told(results, rate=0.25) == ["clean/one: spec.rate: 0.5 -> 0.25"]
    assert told(results, names=("a", "c")) == ["clean/one: spec.names[1]: 'b' -> 'c'"]
    assert told(results, names=("a",)) == ["clean/one: spec.names: ['a', 'b'] -> ['a']"]


def test_code_and_packages_are_named(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now(monkeypatch, "e" * 64, {"scripts/clean/rows.py": "2" * 64}, "f" * 64, {"numpy": "2.0", "new": "3"})
    assert told(results)[2:] == [
        f"clean/one: code.scripts/clean/rows.py: {'1' * 16} -> {'2' * 16}",
        "clean/one: lock.new: (none) -> 3",
        "clean/one: lock.numpy: 1.0 -> 2.0",
        "clean/one: lock.old: 1 -> (none)",
    ]
    # A record that holds no names shows digests.
    assert told(results)[0] == f"download/one: code: {'c' * 16} -> {'e' * 16}"


def test_damage_loss_and_changed_inputs_come_first(results: Path) -> None:
    (results / "download/one/a.txt").write_text("hallo")
    (first, *rest) = told(results)
    assert "download/one: payload" in first and "has SHA-256" in first and rest == []
    (results / "download/one" / SUMS).unlink()
    assert told(results)[0] == "download/one: payload: missing -> to be built"
    assert "clean/one: inputs.download/one" in told(results)[1] and told(results)[1].endswith("(to be built)")


def test_a_diff_goes_down_to_the_row_and_the_tensor(tmp_path: Path) -> None:
    rows = [{"id": str(i), "text": "x"} for i in range(5)]
    other = [*rows[:3], {"id": "3", "text": "y"}, rows[4]]
    a, b = tmp_path / "a" / "r", tmp_path / "b" / "r"
    for root, table, line, digest in ((a, rows, "one\ntwo\n", "0"), (b, other, "one\nzwei\n", "1")):
        made(root, "mix/m", {"train.parquet": table, "mix.json": line})
        made(root, "train/t", {"w.bin": digest}, tensors={"w": digest * 64, "v": "5" * 64})
    made(b, "report", {"index.html": "x"})
    first, second, third = differences(a, b)
    assert (first.artifact, first.how) == ("mix/m", "same key, other value: not deterministic")
    assert first.details == (
        "mix.json: row 2 differs (2 and 2 rows)",
        "train.parquet: row 4 differs (5 and 5 rows)",
    )
    assert (second.artifact, second.details) == ("train/t", ())
    assert (third.artifact, third.how) == ("report", "only in B")
    (only,) = differences(*(_only(root, "train/t") for root in (a, b)))
    assert "1 of 2 tensors differ, first w" in only.details
    assert differences(a, a) == []
    with pytest.raises(ArtifactError, match="no such file or folder"):
        differences(tmp_path / "nowhere", a)


def _only(root: Path, name: str) -> Path:
    """Return a results folder with one artifact of another."""
    folder = root.parent / f"only-{root.parent.name}" / "r"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).rename(folder / name)
    return folder


def test_lineage_says_whether_what_was_used_is_still_there(results: Path) -> None:
    assert [(o.artifact, o.depth, o.found) for o in lineage(results / "clean/one")] == [
        ("clean/one", 0, "same"),
        ("download/one", 1, "same"),
    ]
    record = json.loads((results / "download/one" / RECORD).read_text())
    record.pop("self")
    write_record(results / "download/one" / RECORD, {**record, "value": "9" * 64})
    assert lineage(results / "clean/one")[1].found == "other value now"
    (results / "download/one" / RECORD).unlink()
    assert lineage(results / "clean/one")[1].found == "missing now"
