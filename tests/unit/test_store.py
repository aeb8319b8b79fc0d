"""The shared store: lookup before work, verified both ways, read-only, safe beside other writers and against liars."""

import multiprocessing
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.artifact import place as placing
from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, sha256_file, value_of
from scripts.artifact.place import place
from scripts.artifact.record import read_record
from scripts.artifact.stage import Job, StageError, run_stage
from scripts.artifact.store import KEY_FIELDS, PoisonedError, Store, open_store
from scripts.artifact.verify import check_artifact
from scripts.recipe.base import Spec

Make = Callable[..., Path]


class DummySpec(Spec):
    """A spec for tests."""

    text: str = "hello"


def build(job: Job[DummySpec]) -> None:
    """Write what the inputs hold, in their order."""
    above = "".join((folder / "a.txt").read_text() for folder in job.inputs.values())
    (job.out / "sub").mkdir()
    (job.out / "a.txt").write_text(job.spec.text + above)
    (job.out / "sub" / "b.bin").write_bytes(bytes(range(50)))
    job.counts["files"] = 2


def refuse(job: Job[DummySpec]) -> None:
    """Fail: for runs that must find their artifact in the store."""
    raise StageError("this run had to work")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store that ATELIER_STORE names."""
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("ATELIER_STORE", str(tmp_path / "store"))
    return Store(tmp_path / "store")


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Run a stage in this process; return the artifact's folder."""

    def run(
        recipe: str, name: str, work: Callable[[Job[DummySpec]], None] = build, *inputs: Path, text: str = "hello"
    ) -> Path:
        target = tmp_path / "clones" / recipe / "results" / recipe / name
        argv = ["prog", "--spec", DummySpec(text=text).model_dump_json(), "--output", str(target / SUMS)]
        monkeypatch.setattr(sys, "argv", [*argv, "--inputs", *(str(folder / SUMS) for folder in inputs)])
        run_stage(name.split("/")[0], DummySpec, work)
        return target

    return run


def fields_of(folder: Path) -> dict[str, object]:
    """Return what an artifact's key is made of."""
    record = read_record(folder / RECORD)
    return {name: record[name] for name in KEY_FIELDS}


def damage(path: Path) -> None:
    """Flip a bit of a read-only file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))


def test_another_recipe_and_clone_gets_the_artifact_without_work(
    store: Store, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    first = make("one", "clean/x")
    second = make("two", "clean/x", refuse)
    assert "restored from key" in capsys.readouterr().out
    assert check_artifact(second, deep=True) == []
    assert value_of(second) == value_of(first)
    assert (second / RECORD).read_bytes() == (first / RECORD).read_bytes()
    assert "restored_unix" in read_record(second / FACTS), "volatile facts say so, beside those of the first run"
    assert read_record(second / FACTS)["host"] == read_record(first / FACTS)["host"]
    with pytest.raises(SystemExit, match="this run had to work"):
        make("three", "clean/x", refuse, text="other")


def test_the_name_of_the_asking_recipe_stands_in_the_record(store: Store, make: Make) -> None:
    make("one", "clean/x")
    assert read_record(make("two", "clean/y", refuse) / RECORD)["name"] == "clean/y"


def test_objects_are_read_only_and_leave_no_draft(store: Store, make: Make) -> None:
    first = make("one", "clean/x")
    (entry,) = store.entries()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [entry, *entry.rglob("*")]}
    assert modes == {0o444, 0o555}
    for folder in (first, make("two", "clean/x", refuse)):
        assert (folder / SUMS).stat().st_mode & stat.S_IWUSR, "Snakemake runs no job whose output is read-only"
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_swapped_inputs_are_another_entry(store: Store, make: Make) -> None:
    """C1: Snakemake's cache sorts input digests, so merge(B, A) is served merge(A, B)."""
    a, b = make("one", "clean/a", text="a"), make("one", "clean/b", text="b")
    forward = make("one", "merge/m", build, a, b)
    backward = make("two", "merge/m", build, b, a)
    assert (forward / "a.txt").read_text() == "helloab"
    assert (backward / "a.txt").read_text() == "helloba"
    with pytest.raises(SystemExit, match="this run had to work"):
        make("three", "merge/m", refuse, b)


@pytest.mark.parametrize("name", ["a.txt", "sub/b.bin", SUMS, RECORD, "lost", "more", "link"])
def test_a_tampered_object_is_never_served(
    store: Store, make: Make, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """C2: Snakemake's cache serves what was written into it."""
    first = make("one", "clean/x")
    value = value_of(first)
    (entry,) = store.entries()
    for folder in (entry, entry / "sub"):
        folder.chmod(0o755)
    if name == "lost":
        (entry / "a.txt").unlink()
    elif name == "more":
        (entry / "more").write_text("x")
    elif name == "link":
        (entry / "link").symlink_to("/etc/hostname")
    else:
        damage(entry / name)
    second = make("two", "clean/x")
    said = capsys.readouterr().out
    assert "refused a damaged entry" in said and {"lost": "a.txt"}.get(name, name) in said
    assert value_of(second) == value
    assert check_artifact(second, deep=True) == []
    (kept,) = (store.root / "quarantine").iterdir()
    assert str(kept) in said, "it is named and kept for inspection"
    assert store.check(second), "the good artifact took its place"
    assert make("three", "clean/x", refuse)


def test_an_entry_under_a_foreign_key_is_not_served(store: Store, make: Make, tmp_path: Path) -> None:
    one, two = make("one", "clean/x"), make("one", "clean/y", text="other")
    key_one, key_two = (str(read_record(folder / RECORD)["key"]) for folder in (one, two))
    store.entry(key_one).rename(tmp_path / "moved")
    store.entry(key_two).rename(store.entry(key_one))
    draft = tmp_path / "draft"
    draft.mkdir()
    with pytest.raises(PoisonedError, match="is of another spec"):
        store.fetch(fields_of(one), draft)
    assert list(draft.iterdir()) == []


def test_two_values_for_one_key_name_the_first_differing_file(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make("one", "clean/x")
    monkeypatch.setenv("ATELIER_REBUILD", "1")

    def other(job: Job[DummySpec]) -> None:
        build(job)
        (job.out / "sub" / "b.bin").write_bytes(b"other")

    with pytest.raises(SystemExit, match="not deterministic") as caught:
        make("two", "clean/x", other)
    said = str(caught.value)
    assert "first difference: sub/b.bin" in said
    assert value_of(first) in said
    kept = first.parents[3].parent / "two/results/two/clean/.x.differs"
    assert (kept / "sub/b.bin").read_bytes() == b"other", "nothing is lost"
    assert str(kept) in said
    assert store.check(first), "the first value stays"
    monkeypatch.delenv("ATELIER_REBUILD")
    assert value_of(make("two", "clean/x", refuse)) == value_of(first), "as said, the next run takes the store's"


def test_an_older_artifact_with_another_value_is_reported_and_stays(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("one", "clean/x")
    monkeypatch.delenv("ATELIER_STORE")

    def other(job: Job[DummySpec]) -> None:
        build(job)
        (job.out / "a.txt").write_text("mine")

    mine = make("two", "clean/x", other)
    monkeypatch.setenv("ATELIER_STORE", str(store.root))
    with pytest.raises(SystemExit, match=r"first difference: a\.txt: row 1 differs.*rm -r"):
        make("two", "clean/x", refuse)
    assert (mine / "a.txt").read_text() == "mine"


def test_results_made_before_there_was_a_store_seed_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("one", "clean/x")
    monkeypatch.setenv("ATELIER_STORE", str(tmp_path / "store"))
    make("one", "clean/x", refuse)
    assert make("two", "clean/x", refuse)


def test_a_store_that_cannot_be_used_costs_only_its_use(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("scripts.artifact.store.place", full)
    made = make("one", "clean/x")
    assert check_artifact(made, deep=True) == []
    assert "not stored: [Errno 28] No space left on device" in capsys.readouterr().out
    assert list(store.entries()) == []
    assert not list(store.root.rglob("*.tmp.*"))


def test_a_store_that_cannot_exist_ends_before_the_work(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_STORE", "/nowhere/at/all")
    with pytest.raises(SystemExit, match="ATELIER_STORE=/nowhere/at/all.*name an existing folder"):
        make("one", "clean/x", refuse)
    assert open_store("") is None and open_store(None) is None


def test_a_damaged_artifact_does_not_enter(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATELIER_STORE")
    made = make("one", "clean/x")
    damage(made / "a.txt")
    with pytest.raises(ArtifactError, match=r"a\.txt: has SHA-256"):
        store.add(made)
    assert list(store.entries()) == []


def test_a_file_of_another_user_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "_reflink", lambda *_: False)
    (tmp_path / "a").write_text("x")
    assert place(tmp_path / "a", tmp_path / "sub" / "b") == "hardlink"
    monkeypatch.setattr("os.geteuid", lambda: (tmp_path / "a").stat().st_uid + 1)
    assert place(tmp_path / "a", tmp_path / "c") == "copy"
    assert (tmp_path / "a").stat().st_ino != (tmp_path / "c").stat().st_ino


def test_whoever_may_write_to_the_store_may_write_everywhere_in_it(store: Store, make: Make) -> None:
    store.root.chmod(0o2775)
    old = os.umask(0o077)
    try:
        make("one", "clean/x")
    finally:
        os.umask(old)
    (entry,) = store.entries()
    assert stat.S_IMODE(entry.parent.stat().st_mode) == 0o2775
    assert stat.S_IMODE((entry / "a.txt").stat().st_mode) == 0o444


def test_many_writers_and_readers_of_one_key(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes add, fetch and damage one entry: every fetch is whole or refused, and the end is sound."""
    monkeypatch.delenv("ATELIER_STORE")
    made = make("one", "clean/x")
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    workers = [context.Process(target=_hammer, args=(store, made, number, answers)) for number in range(8)]
    for worker in workers:
        worker.start()
    results = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert [text for good, text in results if not good] == []
    assert store.add(made) in {"there", "added"}
    draft = made.parents[4] / "last"
    draft.mkdir()
    if store.fetch(fields_of(made), draft) is not None:
        assert sha256_file(draft / "a.txt") == sha256_file(made / "a.txt")
    assert not list(store.root.glob("objects-1/*/.*")), "no draft is left"


def _hammer(store: Store, made: Path, number: int, answers: "multiprocessing.Queue[tuple[bool, str]]") -> None:
    wanted, fetched = sha256_file(made / "a.txt"), 0
    try:
        for turn in range(25):
            store.add(made)
            draft = made.parents[4] / f"draft-{number}-{turn}"
            draft.mkdir()
            try:
                if store.fetch(fields_of(made), draft) is not None:
                    fetched += 1
                    assert sha256_file(draft / "a.txt") == wanted
            except PoisonedError:
                pass
            if number == 0 and turn % 8 == 3:
                for entry in store.entries():
                    _replace_bytes(entry / "a.txt")
        answers.put((fetched > 0 or number == 0, f"worker {number} fetched {fetched} times"))
    except BaseException as error:
        answers.put((False, f"worker {number}: {error!r}"))


def _replace_bytes(path: Path) -> None:
    """Poison an entry by another file of that name (the same file has links in results)."""
    try:
        path.parent.chmod(0o755)
        other = path.with_name("a.new")
        other.write_text("poison")
        os.replace(other, path)
    except OSError:
        return


def test_consistent_lies_do_not_have_the_old_value(store: Store, make: Make, tmp_path: Path) -> None:
    """A liar who writes consistent SHA256SUMS still can't give them the old value."""
    make("one", "clean/x")
    (entry,) = store.entries()
    record = read_record(entry / RECORD)
    for path in (entry, entry / RECORD, entry / SUMS, entry / "a.txt"):
        path.chmod(0o755)
    (entry / "a.txt").unlink()
    (entry / "a.txt").write_text("lie")
    draft = tmp_path / "draft"
    draft.mkdir()
    text = (entry / SUMS).read_text().splitlines()
    text[0] = f"{sha256_file(entry / 'a.txt')}  a.txt"
    (entry / SUMS).unlink()
    (entry / SUMS).write_text("\n".join(text) + "\n")
    with pytest.raises(PoisonedError, match="artifact.json says"):
        store.fetch({name: record[name] for name in KEY_FIELDS}, draft)


def test_killed_writers_leave_no_half_entry(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL at many moments of an addition: the entry is whole or not there, and the next writer finishes."""
    monkeypatch.delenv("ATELIER_STORE")
    made = make("one", "clean/x")
    context, seen = multiprocessing.get_context("fork"), set()
    for moment in range(12):
        writer = context.Process(target=store.add, args=(made,))
        writer.start()
        writer.join(0.001 * moment)
        writer.kill()
        writer.join()
        entries = list(store.entries())
        assert [store.examine(entry, deep=True)[0] for entry in entries] == [""] * len(entries)
        seen.add(len(entries))
        for entry in entries:
            shutil.rmtree(entry)
    assert store.add(made) == "added"
    assert seen <= {0, 1} and 0 in seen
