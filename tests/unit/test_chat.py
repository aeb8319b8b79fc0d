"""Talking to a finished model: the format of its template, the same answer for the same seed, nothing unverified."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import SUMS, format_sums, hash_files, payload_files
from scripts.chat.session import Sampling, Session, load
from scripts.recipe.tokenizer import SentencePieceTokenizer
from tests.conftest import ROOT
from tests.unit.release_model import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verified model folder."""
    folder = write_model(tmp_path_factory.mktemp("chat") / "model")
    (folder / SUMS).write_text(format_sums(hash_files(folder, payload_files(folder))))
    return folder


def session(model: Path, said: list[str], temperature: float = 0.8, seed: int = 0, most: int = 12) -> Session:
    """A session that prints into a list."""
    return Session(*load(model, "cpu"), Sampling(temperature, 0.95, most, seed), said.append)


def chat(model: Path, typed: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the program with lines on its standard input."""
    command = [sys.executable, "-m", "scripts.chat", str(model), "--device=cpu", "--max-new-tokens=12", *args]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def test_the_prompt_is_the_chat_template(model: Path) -> None:
    talk = session(model, [])
    talk.system = "You are a ferryman."
    talk.turns = [{"role": "user", "content": "Across?"}]
    truth = SentencePieceTokenizer((model / "tokenizer.model").read_bytes())
    wanted = truth.encode("<|system|>You are a ferryman.<|user|>Across?<|model|>").tolist()
    assert talk.prompt()[0].tolist() == [truth.bos_id, *wanted]


def test_commands(model: Path) -> None:
    said: list[str] = []
    talk = session(model, said)
    talk.run(["Hello\n", "/regenerate\n"])
    assert [turn["role"] for turn in talk.turns] == ["user", "assistant"]
    assert talk.answered == 2
    talk.run(["/system A ferryman.\n"])
    assert (talk.system, talk.turns) == ("A ferryman.", [])
    talk.run(["/regenerate\n", "/what\n", "\n", "Hello\n", "/reset\n", "/quit\n", "not read\n"])
    assert talk.turns == []
    text = "".join(said)
    assert "(nothing to answer again)" in text and "(unknown command /what" in text and "(forgotten)" in text


def test_answers_stream_and_depend_on_the_seed_alone(model: Path) -> None:
    said: dict[str, list[str]] = {"first": [], "again": [], "other": []}
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        session(model, said[name], seed=seed).run(["Tell me of the word.\n"])
    assert len(said["first"]) > 2, "an answer comes in pieces"
    assert said["first"] == said["again"]
    assert said["first"] != said["other"]


def test_a_long_conversation_forgets_its_oldest_exchange(model: Path) -> None:
    said: list[str] = []
    talk = session(model, said)
    for number in range(3):
        talk.turns += [
            {"role": "user", "content": f"{number} " + "word " * 60},
            {"role": "assistant", "content": "Yes."},
        ]
    talk.turns.append({"role": "user", "content": "And now?"})
    assert talk.prompt().shape[1] <= 256 - 12
    assert any("oldest exchange" in text for text in said)
    with pytest.raises(ValueError, match="say it shorter"):
        talk.take("word " * 400)


def test_the_program_reads_lines_and_ends(model: Path) -> None:
    done = chat(model, "Hello\n/quit\n", "--temperature=0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stdout == chat(model, "Hello\n", "--temperature=0").stdout


@pytest.mark.parametrize("damage", ["changed", "added", "missing", "unlisted"])
def test_an_unverified_folder_is_not_loaded(model: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(model), str(folder)], check=True)
    path = folder / {"changed": "model.safetensors", "added": "modeling_x.py", "missing": "config.json"}.get(
        damage, SUMS
    )
    if damage in {"missing", "unlisted"}:
        path.unlink()
    else:
        path.write_bytes(b"x")
    done = chat(folder, "Hello\n")
    assert done.returncode == 1
    assert path.name in done.stderr and "not verified" in done.stderr
    assert done.stdout == "" and "Traceback" not in done.stderr
