"""Downloads against a loopback hub that breaks, throttles, lies and demands a token."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from scripts.artifact.stage import Job, StageError
from scripts.artifact.tensors import digest_safetensors
from scripts.download import build as build_module
from scripts.download.build import build
from scripts.recipe.fetch import DownloadSpec
from tests.unit.hub_server import COMMIT, TOKEN, HubServer

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "quiet/garden"
WEIGHTS = save(
    {"a": np.arange(60_000, dtype=np.float32), "b": np.ones((3, 5), np.float16), "c": np.zeros((0, 4), np.int8)}
)
FILES = {
    "config.json": b'{"hidden_size": 8}\n',
    "data/notes.txt": b"rain on the roof\n" * 5000,
    "model.safetensors": WEIGHTS,
}
LARGE = frozenset({"model.safetensors"})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def pin(content: bytes, size: bool = True) -> dict[str, Any]:
    return {"sha256": sha256(content), "bytes": len(content) if size else None}


def make_job(tmp_path: Path, **fetch: Any) -> Job[DownloadSpec]:
    out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
    out.mkdir()
    spec = DownloadSpec.model_validate({"name": "garden", "fetch": fetch})
    return Job(spec, {}, out, tmp_path / ".work" / "key", threads=1)


def run(job: Job[DownloadSpec]) -> list[float]:
    """Build without waiting; return the waits that were asked for."""
    waits: list[float] = []
    build(job, sleep=waits.append)
    return waits


def payload(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    with HubServer({REPOSITORY: dict(FILES)}, LARGE) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield running


def hub_fetch(names: Any = FILES, **more: Any) -> dict[str, Any]:
    return {"hub": f"{REPOSITORY}@{COMMIT}", "files": dict.fromkeys(names), **more}


def url_fetch(server: HubServer, name: str, **pinned: Any) -> dict[str, Any]:
    address = f"{server.address}/{REPOSITORY}/resolve/{COMMIT}"
    return {"url": address, "files": {name: pinned or pin(FILES[name])}}


def test_hub_gives_exactly_the_named_files_with_digests_of_files_and_tensors(tmp_path: Path, server: HubServer) -> None:
    server.repositories[REPOSITORY]["unnamed.bin"] = b"not asked for"
    job = make_job(tmp_path, **hub_fetch())
    run(job)
    assert payload(job.out) == FILES
    assert job.digests == {name: sha256(content) for name, content in FILES.items()}
    assert (job.digests["model.safetensors"], job.tensors) == digest_safetensors(job.out / "model.safetensors")
    assert job.counts == {"files": 3, "bytes": sum(map(len, FILES.values()))}


def test_dataset_repositories_have_their_own_address(tmp_path: Path, server: HubServer) -> None:
    job = make_job(tmp_path, hub=f"dataset:{REPOSITORY}@{COMMIT}", files={"config.json": None})
    run(job)
    assert {path for _, path, _ in server.requests} == {f"/datasets/{REPOSITORY}/resolve/{COMMIT}/config.json"}


def test_broken_connections_go_on_where_they_stopped(tmp_path: Path, server: HubServer) -> None:
    server.mood.break_after, server.mood.breaks = 100_000, 2
    job = make_job(tmp_path, **url_fetch(server, "model.safetensors"))
    waits = run(job)
    assert payload(job.out) == {"model.safetensors": WEIGHTS}
    assert server.ranges_asked() == ["", "bytes=100000-", "bytes=200000-"]
    assert waits == [1.0, 1.0]  # each attempt brought bytes, so the wait does not grow
    assert (sha256(WEIGHTS), job.tensors) == digest_safetensors(job.out / "model.safetensors")


def test_a_server_without_ranges_starts_over(tmp_path: Path, server: HubServer) -> None:
    server.mood.break_after, server.mood.breaks, server.mood.ranges = 100_000, 1, False
    job = make_job(tmp_path, **url_fetch(server, "model.safetensors"))
    run(job)
    assert payload(job.out) == {"model.safetensors": WEIGHTS}


def test_what_a_failed_attempt_received_is_used_by_the_next(tmp_path: Path, server: HubServer) -> None:
    fetch = hub_fetch()
    server.mood.busy = [503] * 100
    with pytest.raises(StageError, match="gave up after 7 attempts"):
        run(make_job(tmp_path, **fetch))
    server.mood.busy, server.mood.break_after, server.mood.breaks = [], 50_000, 1000
    server.mood.ranges = False  # every attempt brings the same first bytes again: no progress
    with pytest.raises(StageError, match=r"50,000 bytes are kept, run snakemake again"):
        run(make_job(tmp_path, **fetch))
    server.mood.breaks, server.mood.ranges = 0, True
    server.requests.clear()
    job = make_job(tmp_path, **fetch)
    run(job)
    assert payload(job.out) == FILES
    # config.json was finished, data/notes.txt half received: only the rest was asked for.
    assert server.ranges_asked() == ["bytes=50000-", ""]
    assert job.facts["bytes_kept_from_earlier_attempts"] == 50_000 + len(FILES["config.json"])


def test_old_bytes_that_turn_out_wrong_get_one_fresh_start(tmp_path: Path, server: HubServer) -> None:
    job = make_job(tmp_path, **url_fetch(server, "data/notes.txt"))
    old = job.work / "parts" / "data" / "notes.txt"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"torn page of a dead machine")
    run(job)
    assert payload(job.out) == {"data/notes.txt": FILES["data/notes.txt"]}
    assert server.ranges_asked() == ["bytes=27-", ""]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_busy_servers_are_asked_again_later(tmp_path: Path, server: HubServer, status: int) -> None:
    server.mood.busy, server.mood.retry_after = [status] * 3, "17"
    assert run(make_job(tmp_path, **url_fetch(server, "config.json"))) == [17.0] * 3
    server.mood.busy, server.mood.retry_after = [status] * 4, None
    assert run(make_job(tmp_path, **url_fetch(server, "config.json"))) == [1.0, 2.0, 4.0, 8.0]


def test_busy_hubs_are_asked_again_about_a_file(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
    server.mood.busy_look_ups = [429, 503, 429]
    run(make_job(tmp_path, **hub_fetch(["config.json"])))
    assert len(waits) >= 3
    server.mood.busy_look_ups = [429] * 50
    with pytest.raises(StageError, match=r"config\.json: .*status 429 in every attempt; wait and run snakemake again"):
        run(make_job(tmp_path, **hub_fetch(["config.json"])))


@pytest.mark.parametrize("status", [401, 403])
def test_a_plain_address_that_refuses_names_the_page(tmp_path: Path, server: HubServer, status: int) -> None:
    server.mood.busy = [status]
    fetch = url_fetch(server, "config.json")
    with pytest.raises(StageError, match=rf"config\.json: .*status {status}.*https://garden\.invalid/terms.*by hand"):
        run(make_job(tmp_path, **fetch, gated="https://garden.invalid/terms"))


@pytest.mark.parametrize("place", ["hub", "url"])
def test_a_changed_byte_is_named_with_both_digests(tmp_path: Path, server: HubServer, place: str) -> None:
    server.mood.corrupt_at, server.mood.corruptions = 12_345, 100
    name = "model.safetensors"
    job = make_job(tmp_path, **(hub_fetch([name]) if place == "hub" else url_fetch(server, name)))
    changed = bytearray(WEIGHTS)
    changed[12_345] ^= 1
    with pytest.raises(StageError, match=f"{sha256(bytes(changed))}, expected {sha256(WEIGHTS)}"):
        run(job)
    assert payload(job.out) == {}
    assert not list((job.work / "parts").rglob("*.safetensors"))


def test_a_small_file_without_pin_is_held_to_the_commits_blob_id(tmp_path: Path, server: HubServer) -> None:
    server.mood.corrupt_at, server.mood.corruptions = 3, 1
    with pytest.raises(StageError, match="git blob id"):
        run(make_job(tmp_path, **hub_fetch(["config.json"])))


def test_a_header_changed_on_the_way_is_reported_as_wrong_bytes(tmp_path: Path, server: HubServer) -> None:
    server.mood.corrupt_at, server.mood.corruptions = 4, 1
    with pytest.raises(StageError, match="expected"):
        run(make_job(tmp_path, **hub_fetch(["model.safetensors"])))


def test_short_files(tmp_path: Path, server: HubServer) -> None:
    server.mood.shorten = 10
    name, size = "data/notes.txt", len(FILES["data/notes.txt"])
    with pytest.raises(StageError, match=f"has {size - 10:,} bytes, expected {size:,}"):
        run(make_job(tmp_path, **url_fetch(server, name)))
    with pytest.raises(StageError, match=f"SHA-256.* if you changed it, `python -m scripts.recipe pin FOLDER {name}`"):
        run(make_job(tmp_path, **url_fetch(server, name, **pin(FILES[name], size=False))))


def test_a_longer_file_than_pinned_stops_at_once(tmp_path: Path, server: HubServer) -> None:
    with pytest.raises(StageError, match="longer than the 5 bytes"):
        run(make_job(tmp_path, **url_fetch(server, "data/notes.txt", sha256="0" * 64, bytes=5)))


def test_an_end_without_length_is_not_taken_for_the_whole_file(tmp_path: Path, server: HubServer) -> None:
    server.mood.whole, server.mood.break_after, server.mood.breaks = False, 70_000, 1
    job = make_job(tmp_path, **url_fetch(server, "data/notes.txt"))
    run(job)
    assert payload(job.out) == {"data/notes.txt": FILES["data/notes.txt"]}


def test_gated_says_which_page_and_which_variable(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.mood.token = TOKEN
    fetch = hub_fetch(gated="https://hub.invalid/quiet/garden")
    with pytest.raises(StageError, match=r"HF_TOKEN is not set.*https://hub\.invalid/quiet/garden.*HF_TOKEN"):
        run(make_job(tmp_path, **fetch))
    monkeypatch.setenv("HF_TOKEN", "hf_OTHER")
    with pytest.raises(StageError, match="its account has no access") as caught:
        run(make_job(tmp_path, **fetch))
    assert "hf_OTHER" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    job = make_job(tmp_path, **fetch)
    run(job)
    assert payload(job.out) == FILES


def test_the_token_goes_to_the_hub_alone(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer({REPOSITORY: FILES}, LARGE) as storage:
        server.mood.storage, server.mood.token = storage.address, TOKEN
        run(make_job(tmp_path, **hub_fetch()))
        run(make_job(tmp_path, **url_fetch(storage, "config.json")))
        assert len(storage.requests) == 2
        assert not any(TOKEN in str(headers) for _, _, headers in storage.requests)
    assert any(TOKEN in str(headers) for _, _, headers in server.requests)


def test_a_broken_token_is_never_shown(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\nX: y")
    with pytest.raises(StageError, match="HF_TOKEN holds spaces") as caught:
        run(make_job(tmp_path, **hub_fetch()))
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("fetch", "message"),
    [
        ({"hub": f"{REPOSITORY}@{COMMIT}", "files": {"absent.json": None}}, "there is no such file"),
        ({"hub": f"{REPOSITORY}@{'f' * 40}", "files": {"config.json": None}}, "there is no such commit"),
        ({"hub": f"quiet/desert@{COMMIT}", "files": {"config.json": None}}, "or correct the name"),
        (
            {"hub": f"{REPOSITORY}@{COMMIT}", "files": {"model.safetensors": {"sha256": "0" * 64}}},
            f"has SHA-256 {sha256(WEIGHTS)}, the recipe pins {'0' * 64}",
        ),
        (
            {"hub": f"{REPOSITORY}@{COMMIT}", "files": {"config.json": {"sha256": "0" * 64, "bytes": 7}}},
            "has 19 bytes, the recipe pins 7",
        ),
    ],
)
def test_wrong_hub_places(tmp_path: Path, server: HubServer, fetch: Any, message: str) -> None:
    with pytest.raises(StageError, match=message):
        run(make_job(tmp_path, **fetch))
    assert not server.ranges_asked()  # found out before any bytes were asked for


def test_another_commit_and_a_missing_digest_are_refused(tmp_path: Path, server: HubServer) -> None:
    server.mood.etags = False
    with pytest.raises(StageError, match="names no digest"):
        run(make_job(tmp_path, **hub_fetch(["config.json"])))
    server.mood.commit = "f" * 40
    with pytest.raises(StageError, match=f"at {COMMIT}: the server answers with commit f"):
        run(make_job(tmp_path, **hub_fetch(["config.json"])))


def test_a_missing_file_of_a_plain_address(tmp_path: Path, server: HubServer) -> None:
    with pytest.raises(StageError, match=r"absent\.txt: .*status 404.*by hand"):
        run(make_job(tmp_path, **url_fetch(server, "absent.txt", sha256="0" * 64)))


def test_folders_are_copied_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    files = {name: pin(content, size=name != "data/notes.txt") for name, content in FILES.items()}
    monkeypatch.setenv("GARDEN", str(source))
    job = make_job(tmp_path, folder="$GARDEN", files=files)
    run(job)
    assert payload(job.out) == FILES
    assert set(job.tensors) == {"a", "b", "c"}
    (source / "config.json").write_bytes(b'{"hidden_size": 9}\n')
    with pytest.raises(StageError, match=r"config\.json: has SHA-256"):
        run(make_job(tmp_path, folder="${GARDEN}", files=files))
    (source / "config.json").unlink()
    with pytest.raises(StageError, match=r"config\.json: can't be read in the folder \$GARDEN"):
        run(make_job(tmp_path, folder="$GARDEN", files=files))
    monkeypatch.delenv("GARDEN")
    with pytest.raises(StageError, match="variable GARDEN is not set"):
        run(make_job(tmp_path, folder="$GARDEN", files=files))


def test_weights_of_unknown_length_are_left_to_the_door(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    job = make_job(tmp_path, folder=str(tmp_path), files={"model.safetensors": pin(WEIGHTS, size=False)})
    run(job)
    assert (job.digests, job.tensors) == ({}, {})


def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    content = b"\xff" * 100
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(Exception, match=r"model\.safetensors: not a valid safetensors file"):
        run(make_job(tmp_path, folder=str(tmp_path), files={"model.safetensors": pin(content)}))


def test_a_place_that_is_not_confirmed_refuses_to_run(tmp_path: Path, server: HubServer) -> None:
    reason = "nobody has confirmed a commit"
    with pytest.raises(StageError, match=f"garden: not pinned.*{reason}.*scripts.recipe pin"):
        run(make_job(tmp_path, hub=REPOSITORY, files={"config.json": None}, unconfirmed=reason))
    assert not server.requests
    run(make_job(tmp_path, **hub_fetch(["config.json"], unconfirmed=reason)))  # the commit settles it


def test_a_full_disk_says_how_far_it_came(tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    written, real = [0], os.write

    def full(handle: int, view: memoryview) -> int:
        room = 60_000 - written[0]
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(handle, view[:room])
        written[0] += done
        return done

    monkeypatch.setattr("scripts.download.part.os.write", full)
    with pytest.raises(StageError, match="no space left .* make room and run snakemake again"):
        run(make_job(tmp_path, **url_fetch(server, "data/notes.txt")))
    monkeypatch.undo()
    job = make_job(tmp_path, **url_fetch(server, "data/notes.txt"))
    run(job)
    assert payload(job.out) == {"data/notes.txt": FILES["data/notes.txt"]}
    assert server.ranges_asked()[-1] == "bytes=60000-"


def test_too_little_room_is_said_before_the_first_byte(
    tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = build_module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(build_module.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(StageError, match="1,000 are free"):
        run(make_job(tmp_path, **url_fetch(server, "data/notes.txt")))
    assert not server.ranges_asked()


def test_two_downloads_of_the_same_files_do_not_mix(tmp_path: Path, server: HubServer) -> None:
    job = make_job(tmp_path, **hub_fetch())
    with build_module._only_writer(job.work), pytest.raises(StageError, match="another download"):
        run(job)


def test_the_program_itself_publishes_goes_online_and_keeps_no_token(tmp_path: Path, server: HubServer) -> None:
    server.mood.token = TOKEN
    spec = DownloadSpec.model_validate({"name": "garden", "fetch": hub_fetch()})
    output = tmp_path / "results" / "test" / "download" / "garden" / "SHA256SUMS"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "ATELIER_UNPINNED": "1",
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "scripts.download", "--spec", spec.model_dump_json(), "--output", str(output)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert output.read_text() == "".join(f"{sha256(FILES[name])}  {name}\n" for name in sorted(FILES))
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(written) >= len(FILES) + 3
    assert not [p for p in written if TOKEN.encode() in p.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr
    assert not list((tmp_path / "results" / "test" / ".work" / "download").glob("*"))
