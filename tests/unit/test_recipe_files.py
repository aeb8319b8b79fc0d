"""The recipes and profiles in the repository, the generated README, and the commands of `scripts.recipe`."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.recipe import __main__ as command
from scripts.recipe.docs import PATH, document
from scripts.recipe.faults import SUFFIXES, lacking_here
from scripts.recipe.fetch import Fetch, Pin
from scripts.recipe.graph import Graph
from scripts.recipe.load import Loaded, load_recipe
from scripts.recipe.resources import job_resources

ROOT = Path(__file__).resolve().parents[2]
REAL = ("pygmalion-2-7b", "pygmalion-2-13b", "mythalion-13b")


@cache
def recipe(name: str) -> Loaded:
    return load_recipe([ROOT / "config" / f"{name}.yaml"], ROOT)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    return command.main()


def test_the_readme_of_recipes_is_not_stale() -> None:
    found = (ROOT / PATH).read_text(encoding="utf-8")
    assert found == document(ROOT), f"{PATH} is stale: run `python -m scripts.recipe docs`"


@pytest.mark.parametrize("key", ["adam_eps", "unconfirmed", "gradient_values", "submitted_before", "target_percent"])
def test_the_readme_holds_keys_of_every_depth(key: str) -> None:
    (row,) = [line for line in document(ROOT).splitlines() if line.startswith(f"| `{key}` |")]
    assert len(row.split("|")[4].strip()) > 10


@pytest.mark.parametrize("name", REAL)
def test_numbers_of_the_announcement(name: str) -> None:
    models = recipe(name).recipe.models
    (train,) = [model.train for model in models.values() if model.train is not None]
    assert train.preset == "corrected"
    pack, optimizer, cadence = train.pack, train.optimizer, train.cadence
    assert (pack.sequence_len, pack.micro_batch_size, pack.gradient_accumulation_steps, pack.num_epochs) == (
        4096,
        8,
        1,
        4,
    )
    assert pack.train_on_inputs
    assert (optimizer.learning_rate, optimizer.warmup_steps, optimizer.lr_quadratic_warmup) == (1.7e-5, 32, True)
    assert (optimizer.adam_beta1, optimizer.adam_beta2, optimizer.adam_eps) == (0.9, 0.95, 1e-9)
    assert (optimizer.weight_decay, optimizer.max_grad_norm) == (0.1, 1.0)
    assert (cadence.logging_steps, cadence.eval_steps, cadence.save_steps, cadence.save_total_limit) == (1, 64, 256, 50)
    assert train.launch.processes * pack.micro_batch_size == 64
    assert train.numerics.tf32
    assert train.numerics.gradient_checkpointing


@pytest.mark.parametrize("name", REAL)
def test_as_released_changes_each_quirk(name: str, tmp_path: Path) -> None:
    model = next(n for n, m in recipe(name).recipe.models.items() if m.train is not None)
    (tmp_path / "quirks.yaml").write_text(yaml.safe_dump({"models": {model: {"train": {"preset": "as-released"}}}}))
    train = load_recipe([ROOT / "config" / f"{name}.yaml", tmp_path / "quirks.yaml"], ROOT).recipe.models[model].train
    assert train is not None
    pack, optimizer = train.pack, train.optimizer
    assert (optimizer.adam_eps, optimizer.decay_norms, optimizer.loss_mean) == (1e-8, True, "rank")
    assert (pack.packing, pack.eos_count, pack.boundary_label, pack.epoch_len) == (
        "consecutive",
        3,
        "keep",
        "rule_0.99",
    )
    assert (train.numerics.precision, train.numerics.fsdp_offload_params) == ("pure_bf16", True)
    assert train.cadence.final_ckpt == "best_eval"


def test_all_real_recipes_read_the_same_mixture() -> None:
    first, *others = (recipe(name).recipe.mixtures for name in REAL)
    assert all(mixtures == first for mixtures in others)
    sources = first["metharme-2"].sources
    assert sources["openorca"].max_rows == 400_000
    assert 90 < sum(share.target_percent or 0 for share in sources.values()) <= 100


def test_mythalion_is_the_merge_of_appendix_b_and_plans_the_whole_chain() -> None:
    graph = Graph(recipe("mythalion-13b"))
    assert graph.jobs[("merge", "mythalion-13b")].inputs == (
        ("train", "pygmalion-2-13b"),
        ("download", "mythomax-l2-13b"),
    )
    merge = graph.recipe.models["mythalion-13b"].merge
    assert merge is not None
    assert {op.filter: op.gradient_values for op in merge.operations} == {
        "lm_head": [0.5],
        "embed_tokens": [0.5],
        "self_attn": [0.2, 0.8],
        "mlp": [0.8, 0.2],
        "layernorm": [0.5],
        "model.norm": [0.5],
    }
    assert (merge.out_dtype, merge.max_shard_bytes) == ("float16", 2000 * 1024**2)
    assert job_resources(graph, ("train", "pygmalion-2-13b"))["gpu"] == 8


def test_every_real_model_but_mythomax_is_pinned() -> None:
    for name in REAL:
        for model, row in recipe(name).recipe.models.items():
            if row.download is not None:
                assert row.download.pinned is (model != "mythomax-l2-13b")


def test_a_second_file_can_pin_mythomax(tmp_path: Path) -> None:
    place = {"hub": f"Gryphe/MythoMax-L2-13b@{'0' * 40}"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"models": {"mythomax-l2-13b": {"download": place}}}))
    loaded = load_recipe([ROOT / "config" / "mythalion-13b.yaml", tmp_path / "mine.yaml"], ROOT)
    fetch = loaded.recipe.models["mythomax-l2-13b"].download
    assert fetch is not None
    assert fetch.pinned
    assert fetch.hub_parts() == ("model", "Gryphe/MythoMax-L2-13b", "0" * 40)


def test_check_says_ok_or_every_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    good, bad = ROOT / "config" / "mythalion-13b.yaml", tmp_path / "bad.yaml"
    bad.write_text(
        good.read_text().replace("num_epochs: 4", "num_epoch: 4").replace("warmup_steps: 32", "warmup_steps: -1")
    )
    assert run(monkeypatch, "check", str(good)) == 0
    shown = capsys.readouterr().out
    assert f"{good}: OK" in shown
    assert "mythomax-l2-13b.download refuses to run until it is pinned" in shown
    assert run(monkeypatch, "check", str(good), str(bad)) == 1
    shown = capsys.readouterr().out
    assert 'did you mean "num_epochs"?' in shown
    assert "warmup_steps: found -1" in shown
    assert run(monkeypatch, "check", str(tmp_path / "absent.yaml")) == 1
    assert f"no recipe {tmp_path / 'absent.yaml'}" in capsys.readouterr().out


def test_check_lays_a_part_over_the_recipe_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    over, tiny = tmp_path / "over.yaml", ROOT / "tests/recipes/tiny.yaml"
    over.write_text("seed: 8\n")
    assert run(monkeypatch, "check", str(tiny), str(over), str(ROOT / "config/demo.yaml")) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tiny} + {over}: OK")
    assert second.startswith(f"{ROOT / 'config/demo.yaml'}: OK")
    over.write_text("sead: 8\n")
    assert run(monkeypatch, "check", str(tiny), str(over)) == 1
    assert capsys.readouterr().out.startswith(f"{over}:1: sead: unknown key")


def test_check_names_what_this_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ELSEWHERE", raising=False)
    pin = Pin(sha256="0" * 64, bytes=3)

    def lacks(folder: str) -> list[str]:
        return list(lacking_here(Fetch(folder=folder, files={"a.json": pin})))

    assert lacks("$ELSEWHERE") == ["folder '$ELSEWHERE': the variable ELSEWHERE is not set; set it to a folder"]
    assert lacks(str(tmp_path / "x")) == [f"no folder {tmp_path / 'x'} on this machine"]
    assert lacks(str(tmp_path)) == [f"no file a.json in {tmp_path}"]
    (tmp_path / "a.json").write_bytes(b"abcd")
    (changed,) = lacks(str(tmp_path))
    assert "a.json has 4 bytes, its pin says 3; if you changed it, `python -m scripts.recipe pin" in changed
    (tmp_path / "a.json").write_bytes(b"abc")
    assert lacks(str(tmp_path)) == []


def test_suffixes_are_those_of_the_adapters() -> None:
    found = {}
    for path in (ROOT / "scripts/clean/adapters").glob("*.py"):
        text = path.read_text()
        if call := re.search(r"source_files\(folder, (.*?)\)", text):
            named = re.search(r"^SUFFIXES = \((.*?)\)", text, re.M) if "SUFFIXES" in call[1] else call
            assert named is not None
            found[path.stem] = tuple(re.findall(r'"(\.\w+)"', named[1]))
    assert found == SUFFIXES


def test_name_is_the_recipes_own_not_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text("name: innkeeper\nseed: what\n")
    (tmp_path / "over.yaml").write_text("seed: 1\n")
    (tmp_path / "bad.yaml").write_text("name: my recipe!\n")
    assert run(monkeypatch, "name", str(tmp_path / "mine.yaml"), str(tmp_path / "over.yaml")) == 0
    assert capsys.readouterr().out == "innkeeper\n"
    assert run(monkeypatch, "name", str(tmp_path / "bad.yaml")) == 1
    assert "bad.yaml:1: name: " in capsys.readouterr().err


@pytest.mark.parametrize("goal", ["verify", "lock", "audit"])
def test_make_looks_where_the_recipes_name_says(goal: str, tmp_path: Path) -> None:
    def printed(recipe: str) -> str:
        (tmp_path / ".venv").mkdir(exist_ok=True)
        command = ["make", "-s", "-f", str(ROOT / "Makefile"), f"BIN={Path(sys.executable).parent}", goal]
        command += ["-o", "install", f"RECIPE={recipe}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, f"CURDIR={ROOT}"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        return done.stderr

    (tmp_path / "mine.yaml").write_text("name: innkeeper\n")
    assert "results/innkeeper" in printed("mine.yaml")
    assert "results/demo" in printed("config/demo.yaml")
    assert printed("nope.yaml").startswith("no recipe nope.yaml\n")


def test_pin_prints_what_a_recipe_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1e5.txt").write_bytes(b"moss\n")
    assert run(monkeypatch, "pin", str(tmp_path), "data/1e5.txt") == 0
    found = yaml.safe_load(capsys.readouterr().out)
    assert found == {"files": {"data/1e5.txt": {"sha256": hashlib.sha256(b"moss\n").hexdigest(), "bytes": 5}}}
    assert run(monkeypatch, "pin", str(tmp_path), str(tmp_path / "data" / "1e5.txt")) == 0
    assert list(yaml.safe_load(capsys.readouterr().out)["files"]) == ["data/1e5.txt"]
    for other in (str(tmp_path / "other.txt"), "../other.txt"):
        assert run(monkeypatch, "pin", str(tmp_path / "data"), other) == 1
        assert "lies outside" in capsys.readouterr().err
    (tmp_path / "Bella @10h.txt").touch()
    assert run(monkeypatch, "pin", str(tmp_path), "Bella @10h.txt") == 1
    assert "rename the file" in capsys.readouterr().err
    assert run(monkeypatch, "pin", str(tmp_path), "absent") == 1
    assert "No such file" in capsys.readouterr().err


def profile(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / name / "profile.yaml").read_text()))


@pytest.mark.parametrize("name", ["slurm-a40", "slurm-h100"])
def test_profiles_are_found_from_the_root_and_hold_no_traps(name: str) -> None:
    assert (ROOT / name).is_symlink()
    assert (ROOT / name).resolve() == ROOT / "profiles" / name
    assert not (ROOT / "profiles" / "default").exists()
    settings = profile(name)
    assert settings["executor"] == "slurm"
    assert "software-deployment-method" not in settings  # an empty list is a command line error
    assert all((ROOT / path).is_file() for path in settings["configfile"])
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    assert all(re.search(rf"^(checkpoint|rule) {rule}:", rules, re.M) for rule in settings["set-resources"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gpus"), [("slurm-a40", "a40"), ("slurm-h100", "h100")])
def test_a_dry_run_by_profile_shows_what_is_asked_for(name: str, gpus: str, tmp_path: Path) -> None:
    snakemake = Path(sys.executable).with_name("snakemake")
    if not snakemake.exists() and shutil.which("snakemake") is None:
        pytest.skip("snakemake is not installed")
    done = subprocess.run(
        [snakemake if snakemake.exists() else "snakemake", "-n", "--profile", name, "--directory", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown[-2000:]
    (training,) = [line for line in shown.splitlines() if line.startswith("Job") and ": train " in line]
    assert "8 GPUs, 32 threads, 400000 MB, 1440 min" in training
    assert profile(name)["set-resources"]["train_model"]["gpu_model"] == gpus
