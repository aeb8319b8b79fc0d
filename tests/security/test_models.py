"""R1, R2, R3, R5: model folders that want to run code or reach other files are refused before a library sees them."""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.artifact.digest import SUMS, ArtifactError, format_sums, hash_files, payload_files
from scripts.artifact.stage import StageError
from scripts.benchmark.folder import check_model_folder
from scripts.merge.models import open_model
from scripts.train.checks import read_config
from tests.conftest import ROOT
from tests.unit.release_model import write_model
from tests.unit.train_fixtures import make_base, make_pack, make_spec


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def trap(mark: Path) -> bytes:
    """Return a pickle that leaves a mark."""
    return pickle.dumps(Trap(mark))


def setting(name: str, **keys: Any) -> Callable[[Path], None]:
    """Return a function that adds keys to a JSON file of a folder."""

    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**content, **keys}))

    return change


def shard(name: object) -> Callable[[Path], None]:
    """Return a function that makes the index name a file."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        content = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return change


def header(folder: Path) -> None:
    """Make a tensor reach behind the end of the file."""
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    table = json.loads(raw[8 : 8 + length])
    table["model.norm.weight"]["data_offsets"] = [0, 1 << 40]
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def only_a_pickle(folder: Path) -> None:
    """Give weights in the old format alone."""
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(trap(folder.parent / "PWNED"))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    # name: (change of a good folder, text that the message must hold)
    "auto_map": (setting("config.json", auto_map={"AutoModelForCausalLM": "evil.Model"}), "auto_map"),
    "auto_map on the hub": (setting("config.json", auto_map={"AutoModel": "owner/repo--evil.Model"}), "auto_map"),
    "nested auto_map": (setting("config.json", text_config={"auto_map": {"AutoModel": "evil.M"}}), "auto_map"),
    "trust_remote_code": (setting("config.json", trust_remote_code=True), "trust_remote_code"),
    "attn_implementation": (setting("config.json", attn_implementation="owner/kernel"), "attn_implementation"),
    "_attn_implementation": (setting("config.json", _attn_implementation="owner/kernel"), "_attn_implementation"),
    "CVE-2026-4372": (setting("config.json", _attn_implementation_internal="owner/kernel"), "_internal"),
    "experts": (setting("config.json", experts_implementation="owner/kernel"), "experts_implementation"),
    "kernels": (setting("config.json", use_kernels=True), "use_kernels"),
    "kernel_config": (setting("config.json", kernel_config={"RMSNorm": "owner/kernel:RMSNorm"}), "kernel_config"),
    "pipelines": (setting("config.json", custom_pipelines={"x": {"impl": "evil.P"}}), "custom_pipelines"),
    "tokenizer code": (setting("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}), "auto_map"),
    "generation code": (setting("generation_config.json", custom_generate="owner/generate"), "custom_generate"),
    "adapter": (setting("adapter_config.json", auto_mapping={"parent_library": "evil"}), "auto_mapping"),
    "python file": (lambda folder: _write(folder / "modeling_evil.py", b"import os"), "modeling_evil.py"),
    "python file below": (lambda folder: _write(folder / "custom/generate.py", b"import os"), "generate.py"),
    "library": (lambda folder: _write(folder / "kernel.so", b"\x7fELF"), "kernel.so"),
    "only a pickle": (only_a_pickle, "safetensors"),
    "shard above": (shard("../outside.safetensors"), "weight_map names"),
    "shard anywhere": (shard("/etc/outside.safetensors"), "weight_map names"),
    "shard below": (shard("a/../../outside.safetensors"), "weight_map names"),
    "shard with a line break": (shard("model.safetensors\n"), "weight_map names"),
    "shard of another kind": (shard("pytorch_model.bin"), "weight_map names"),
    "header": (header, "not a valid safetensors file"),
    "settings that are no JSON": (lambda folder: _write(folder / "config.json", b"{"), "config.json"),
    "settings without an end": (lambda folder: _write(folder / "config.json", b"[" * 100_000), "config.json"),
}
READERS: dict[str, Callable[[Path], object]] = {
    "benchmark": check_model_folder,
    "merge": lambda folder: open_model("m", folder),
    "train": read_config,
}
# Training opens the weights itself, after its own check of the settings: see the test of its program.
WEIGHTS = {"only a pickle", "shard above", "shard anywhere", "shard below", "shard with a line break", "header"}
WEIGHTS |= {"shard of another kind"}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with nothing wrong."""
    return make_base(tmp_path_factory.mktemp("good") / "base")


@pytest.mark.parametrize("reader", READERS)
def test_a_good_folder_passes(good: Path, reader: str) -> None:
    READERS[reader](good)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_folder_is_refused_by_name(good: Path, tmp_path: Path, case: str, reader: str) -> None:
    if reader == "train" and case in WEIGHTS:
        from scripts.artifact.tensors import model_files, read_header

        read: Callable[[Path], object] = lambda folder: [read_header(p) for p in model_files(folder)]  # noqa: E731
    else:
        read = READERS[reader]
    folder = tmp_path / "model"
    shutil.copytree(good, folder)
    change, word = HOSTILE[case]
    change(folder)
    with pytest.raises((StageError, ArtifactError)) as caught:
        read(folder)
    assert word in str(caught.value) and str(folder) in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


def seal(folder: Path) -> Path:
    """Give a folder the SHA256SUMS that its attacker would give it."""
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))))
    return folder


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a program that tells on its standard error which modules it imports."""
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        input="Hello\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def imports(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Return the top-level modules that a program imported."""
    rows = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(rows) > 20, "the program did not tell its imports"
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in rows}


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a program said beside its imports."""
    return "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))


@pytest.mark.parametrize("case", ["auto_map", "attn_implementation", "python file", "shard above", "only a pickle"])
def test_the_training_program_refuses_before_transformers_is_imported(good: Path, tmp_path: Path, case: str) -> None:
    results = tmp_path / "results" / "r"
    base = results / "create" / "base"
    shutil.copytree(good, base)
    HOSTILE[case][0](base)
    seal(base)
    pack = make_pack(results / "pack" / "tuned", processes=2)
    spec = make_spec().model_dump_json()
    target = results / "train" / "tuned" / SUMS
    given = [str(folder / SUMS) for folder in (base, pack)]
    done = run("scripts.train", "--spec", spec, "--inputs", *given, "--output", str(target))
    assert done.returncode == 1, done.stdout
    assert HOSTILE[case][1] in said(done), said(done)
    assert "Traceback" not in said(done)
    assert "transformers" not in imports(done)
    assert not target.exists() and not (results / "create" / "PWNED").exists()


@pytest.mark.parametrize("case", ["auto_map", "attn_implementation", "tokenizer code", "python file"])
def test_chat_refuses_before_transformers_is_imported(tmp_path: Path, case: str) -> None:
    """A downloaded release with digests that are right: they say who changed nothing, not that all is harmless."""
    folder = write_model(tmp_path / "model")
    HOSTILE[case][0](folder)
    done = run("scripts.chat", str(seal(folder)), "--device=cpu", "--max-new-tokens=2")
    assert done.returncode == 1, done.stdout
    assert HOSTILE[case][1] in said(done), said(done)
    assert "Traceback" not in said(done)
    assert "transformers" not in imports(done)


ESCAPES = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.mkdir('PWNED') }}",
    "namespace": "{{ namespace.__init__.__globals__['sys'].modules['os'].mkdir('PWNED') }}",
    "raise": "{{ raise_exception.__globals__ }}",
    "filter": "{{ messages|map('attr', '__class__')|list }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "changed messages": "{% set x = messages.append(messages) %}",
    "include": "{% include '/etc/passwd' %}",
    "endless": "{% for i in range(1000000000) %}x{% endfor %}",
    "no template": "{% for %}",
}


@pytest.mark.parametrize("case", ESCAPES)
def test_a_hostile_chat_template_stays_in_its_sandbox(tmp_path: Path, case: str) -> None:
    from scripts.chat.session import Sampling, Session, load

    folder = write_model(tmp_path / "model")
    (folder / "chat_template.jinja").write_text(ESCAPES[case])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    prompts: list[str] = []
    talk = Session(*load(folder, "cpu"), Sampling(0.0, 1.0, 2, 0), prompts.append)
    talk.turns = [{"role": "user", "content": "Hello"}]
    before = set(Path.cwd().iterdir())
    try:
        ids = talk.prompt()[0].tolist()
    except ValueError as error:
        assert "chat_template" in str(error)
    else:  # an unknown name renders as nothing: harmless, if nothing of Python's inside came out
        text = talk.tokenizer.decode(ids)
        assert not {"class", "function", "module", "root:"} & set(text.replace("<", " ").split()), text
    assert set(Path.cwd().iterdir()) == before


def test_packed_rows_with_a_pickle_inside_are_refused(tmp_path: Path) -> None:
    """numpy's own format can hold pickled objects."""
    from scripts.train.checks import read_pack

    pack = make_pack(tmp_path / "pack", processes=2)
    with (pack / "schedule_rows.npy").open("wb") as handle:
        np.save(handle, np.array([Trap(tmp_path / "PWNED")], dtype=object), allow_pickle=True)
    with pytest.raises((StageError, ValueError), match="schedule_rows"):
        read_pack(pack, make_spec(), 512)
    assert not (tmp_path / "PWNED").exists()


def test_the_trap_works(tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    pickle.loads(trap(tmp_path / "PWNED"))
    assert (tmp_path / "PWNED").exists()
