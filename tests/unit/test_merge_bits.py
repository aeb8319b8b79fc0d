"""Bits of a merge: equal to the independent reference, and to themselves whatever the machine does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from scripts.artifact.digest import sha256_file
from scripts.artifact.tensors import digest_safetensors
from scripts.merge import chunks
from scripts.merge.kernel import BLOCK, LANES
from scripts.merge.ratios import gradient
from tests.unit import merge_toy as toys

RECIPES: dict[str, dict[str, Any]] = {
    "mythalion-13b": {"operations": toys.MYTHALION},
    "mythalion-13b-prose": {"operations": toys.PROSE},
    "mythomax-l2-13b": {"operations": toys.MYTHOMAX},
    "mythomix-l2-13b": {"operations": toys.MYTHOMIX, "uncovered": "first_model"},
    "mythologic-mini-7b": {"operations": toys.MYTHOLOGIC_MINI, "uncovered": "first_model"},
    "legacy": {"operations": toys.MYTHALION, "legacy_inv_freq": True},
    "compound": {"operations": [*toys.MYTHALION, toys.MYTHOLOGIC_MINI[0]], "allow_compound": True},
}


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two 40-layer models of 363 tensors: bf16 in three shards, and fp16."""
    root = tmp_path_factory.mktemp("forty")
    return toys.toy(root / "a", 1, "bfloat16", shards=3, layers=40), toys.toy(root / "b", 2, "float16", layers=40)


@pytest.mark.parametrize("name", RECIPES)
def test_equals_the_reference_on_363_tensors(name: str, forty: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = forty
    recipe = RECIPES[name]
    made = toys.merge(tmp_path, first, second, **recipe)
    found, legacy = toys.load(made.out), bool(recipe.get("legacy_inv_freq"))
    wanted = toys.reference(toys.load(first), toys.load(second), recipe["operations"], legacy=legacy)
    assert len(found) == 363
    assert toys.same_bits(found, wanted) == []


@pytest.mark.parametrize("dtypes", ["float16 float16 float16", "bfloat16 float32 bfloat16", "float32 float16 float32"])
def test_other_formats_equal_the_reference(dtypes: str, tmp_path: Path) -> None:
    one, two, out = dtypes.split()
    first, second = toys.toy(tmp_path / "a", 1, one), toys.toy(tmp_path / "b", 2, two)
    made = toys.merge(tmp_path, first, second, out_dtype=out)
    wanted = toys.reference(toys.load(first), toys.load(second), toys.MYTHALION, out)
    assert toys.same_bits(toys.load(made.out), wanted) == []
    written = json.loads((made.out / "config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == out


def test_tensors_of_many_chunks_equal_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2 * BLOCK + LANES + 3)
    first = toys.toy(tmp_path / "a", 1, "bfloat16", layers=1, hidden=640)
    second = toys.toy(tmp_path / "b", 2, "bfloat16", layers=1, hidden=640)
    wanted = toys.reference(toys.load(first), toys.load(second), toys.MYTHALION)
    for threads in (1, 3):
        made = toys.merge(tmp_path / str(threads), first, second, threads)
        assert toys.same_bits(toys.load(made.out), wanted) == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_with_a_is_a(dtype: str, tmp_path: Path) -> None:
    first = toys.toy(tmp_path / "a", 1, dtype, hidden=64)
    made = toys.merge(tmp_path, first, first, out_dtype=dtype)
    assert toys.same_bits(toys.load(made.out), toys.load(first)) == []
    figures = json.loads((made.out / "merge.json").read_text())["tensors"]
    assert {t["norm_c_minus_a"] for t in figures.values()} == {0.0} == {t["norm_c_minus_b"] for t in figures.values()}


@pytest.mark.parametrize(("ratio", "donor"), [(0.0, 0), (1.0, 1)])
def test_ratio_0_and_1_copy_bytes_and_ignore_the_other_model(ratio: float, donor: int, tmp_path: Path) -> None:
    settings = toys.config()
    pair = [toys.weights(settings, seed, "bfloat16") for seed in (1, 2)]
    pair[donor]["model.norm.weight"][:3] = torch.tensor([-0.0, 0.0, 1e-40]).to(torch.bfloat16)
    pair[1 - donor]["model.norm.weight"][0] = float("nan")
    pair[1 - donor]["lm_head.weight"][1, 2] = float("inf")
    first, second = (toys.save(tmp_path / n, settings, w) for n, w in zip("ab", pair, strict=True))
    operations = [{"filter": "", "gradient_values": [ratio]}]
    made = toys.merge(tmp_path, first, second, operations=operations, out_dtype="bfloat16")
    assert toys.same_bits(toys.load(made.out), pair[donor]) == []
    unused = json.loads((made.out / "merge.json").read_text())["tensors"]["model.norm.weight"]
    assert unused["norm_c_minus_b" if donor == 0 else "norm_c_minus_a"] is None


def test_swapped_models_with_1_minus_r_give_the_same_bits(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1, "bfloat16", layers=40), toys.toy(tmp_path / "b", 2, layers=40)
    swapped = [{**o, "gradient_values": [1 - v for v in o["gradient_values"]]} for o in toys.MYTHALION]
    one = toys.merge(tmp_path / "1", first, second)
    two = toys.merge(tmp_path / "2", second, first, operations=swapped)
    assert toys.same_bits(toys.load(one.out), toys.load(two.out)) == []


def test_threads_and_shard_size_change_no_tensor_and_no_figure(forty: tuple[Path, Path], tmp_path: Path) -> None:
    results = {}
    for threads, size in ((1, 10**9), (2, 10**9), (5, 10**9), (2, 9000)):
        made = toys.merge(tmp_path / f"{threads}-{size}", *forty, threads=threads, max_shard_bytes=size)
        results[threads, size] = made
    base = results[1, 10**9]
    for made in results.values():
        assert made.tensors == base.tensors
        assert (made.out / "merge.json").read_bytes() == (base.out / "merge.json").read_bytes()
    assert results[1, 10**9].digests == results[2, 10**9].digests == results[5, 10**9].digests
    assert results[2, 9000].counts["shards"] == 6


def test_digests_taken_while_writing_are_those_of_the_files(forty: tuple[Path, Path], tmp_path: Path) -> None:
    made = toys.merge(tmp_path, *forty, threads=2, max_shard_bytes=9000)
    names = {path.name for path in made.out.glob("*.safetensors")}
    assert set(made.digests) == names
    tensors: dict[str, str] = {}
    for name in names:
        whole, parts = digest_safetensors(made.out / name)
        assert whole == made.digests[name] == sha256_file(made.out / name)
        tensors.update(parts)
    assert tensors == made.tensors


def test_shards_and_index_as_other_tools_read_them(forty: tuple[Path, Path], tmp_path: Path) -> None:
    made = toys.merge(tmp_path, *forty, max_shard_bytes=9000)
    index = json.loads((made.out / "model.safetensors.index.json").read_text())
    held, total = {}, 0
    for path in sorted(made.out.glob("*.safetensors")):
        with safe_open(path, "pt") as shard:
            assert shard.metadata() == {"format": "pt"}
            held.update(dict.fromkeys(shard.keys(), path.name))
            sizes = [shard.get_tensor(n).nbytes for n in list(shard.keys())]
        assert sum(sizes) <= 9000
        assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0
        total += sum(sizes)
    assert index == {"metadata": {"total_size": total}, "weight_map": held}


_CHILD = """
import sys, time
from pathlib import Path
from scripts.merge import write
from tests.unit import merge_toy as toys
real, count = write.write_all, [0]
def slow(handle, content):
    count[0] += 1
    if count[0] == int(sys.argv[4]):
        print("HALF", flush=True)
        time.sleep(60)
    real(handle, content)
write.write_all = slow
made = toys.job(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), 2, max_shard_bytes=9000)
toys.build(made)
"""


def test_kill_9_and_rerun_gives_the_same_bytes_and_keeps_finished_shards(
    forty: tuple[Path, Path], tmp_path: Path
) -> None:
    fresh = toys.merge(tmp_path / "fresh", *forty, threads=2, max_shard_bytes=9000)
    root = tmp_path / "killed"
    root.mkdir()
    code = [sys.executable, "-c", _CHILD, str(root), *map(str, forty), "220"]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    with subprocess.Popen(code, stdout=subprocess.PIPE, text=True, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "HALF\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    done = {p.name: p.stat() for p in (root / "work").glob("model-*.safetensors")}
    assert 1 < len(done) < fresh.counts["shards"]
    assert list((root / "work").glob("*.partial"))
    torn = sorted(done)[1]
    (root / "work" / torn).write_bytes(b"\0" * done[torn].st_size)  # a power cut: right size, wrong bytes
    (root / "out").rename(root / "swept")
    again = toys.merge(root, *forty, threads=2, max_shard_bytes=9000)
    assert again.facts["resumed_shards"] == len(done) - 1
    assert again.digests == fresh.digests
    assert again.tensors == fresh.tensors
    for path in sorted(fresh.out.iterdir()):
        assert (again.out / path.name).read_bytes() == path.read_bytes(), path.name
    kept = [n for n, stat in done.items() if (again.out / n).stat().st_ino == stat.st_ino and n != torn]
    assert len(kept) == len(done) - 1
    assert not list((root / "work").glob("*.partial"))


def test_work_of_another_plan_is_not_resumed(tmp_path: Path) -> None:
    first, second = toys.toy(tmp_path / "a", 1), toys.toy(tmp_path / "b", 2)
    toys.merge(tmp_path, first, second)
    (tmp_path / "out").rename(tmp_path / "old")
    made = toys.merge(tmp_path, first, second, operations=toys.PROSE)
    assert made.facts["resumed_shards"] == 0
    wanted = toys.reference(toys.load(first), toys.load(second), toys.PROSE)
    assert toys.same_bits(toys.load(made.out), wanted) == []


def test_figures_are_the_true_distances(tmp_path: Path) -> None:
    settings = toys.config(hidden=128)
    a = toys.weights(settings, 1, "bfloat16")
    noise = toys.weights(settings, 2, "float32")
    b = {n: (t.float() + 0.01 * noise[n]).to(torch.bfloat16) for n, t in a.items()}
    first, second = toys.save(tmp_path / "a", settings, a), toys.save(tmp_path / "b", settings, b)
    made = toys.merge(tmp_path, first, second, out_dtype="bfloat16")
    figures = json.loads((made.out / "merge.json").read_text())["tensors"]
    for name, c in toys.load(made.out).items():
        x, y, z = (t.double().flatten() for t in (a[name], b[name], c))
        assert figures[name]["norm_c_minus_a"] == pytest.approx(float((z - x).norm()), rel=1e-5)
        assert figures[name]["norm_c_minus_b"] == pytest.approx(float((z - y).norm()), rel=1e-5)
        cosine = float(torch.dot(z, y) / z.norm() / y.norm())
        assert 1 - figures[name]["cosine_b"] == pytest.approx(1 - cosine, rel=1e-3, abs=1e-9)


def test_overflow_and_flush_are_counted(tmp_path: Path) -> None:
    settings = toys.config()
    a, b = (toys.weights(settings, 1, "bfloat16") for _ in range(2))
    for side in (a, b):
        side["lm_head.weight"][0, :4] = torch.tensor([70000.0, -1e30, 1e-9, 0.0]).to(torch.bfloat16)
    first, second = toys.save(tmp_path / "a", settings, a), toys.save(tmp_path / "b", settings, b)
    made = toys.merge(tmp_path, first, second)
    wide = toys.reference(a, b, toys.MYTHALION, "float32")
    narrow = {n: t.half() for n, t in wide.items()}
    assert made.counts["overflowed"] == sum(int(t.isinf().sum()) for t in narrow.values()) == 2
    assert made.counts["flushed"] == sum(int(((narrow[n] == 0) & (t != 0)).sum()) for n, t in wide.items()) >= 1
    assert toys.same_bits(toys.load(made.out), narrow) == []


@settings(max_examples=200, deadline=None)
@example(values=[0.0, 5e-324], count=4)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=6), count=st.integers(0, 300))
def test_gradient_is_numpys_linspace_bit_for_bit(values: list[float], count: int) -> None:
    found = gradient(values, count)
    assert found == toys.reference_ratios(values, count)
    assert len(found) == count
    assert all(-1e-15 <= r <= 1 + 1e-15 for r in found)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    knots=st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), min_size=1, max_size=4),
    layers=st.integers(1, 3),
    out=st.sampled_from(["float16", "bfloat16", "float32"]),
    threads=st.integers(1, 4),
)
def test_any_gradient_equals_the_reference(
    knots: list[float], layers: int, out: str, threads: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("any")
    first, second = toys.toy(root / "a", 1, layers=layers), toys.toy(root / "b", 2, "bfloat16", layers=layers)
    operations = [{"filter": "", "gradient_values": knots}]
    made = toys.merge(root, first, second, threads, operations=operations, out_dtype=out)
    wanted = toys.reference(toys.load(first), toys.load(second), operations, out)
    found = toys.load(made.out)
    bad = toys.same_bits(found, wanted)
    # At ratio 0 and 1 the formula turns -0 into +0; ours copies. There, equal values are enough.
    assert [n for n in bad if not torch.equal(found[n], wanted[n])] == []


_DIGEST = """
import sys
from pathlib import Path
from tests.unit import merge_toy as toys
made = toys.merge(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), 2)
from scripts.artifact.digest import hash_files, payload_files, format_sums
print(format_sums(hash_files(made.out, payload_files(made.out))))
"""


def test_hash_seed_locale_and_time_zone_change_nothing(forty: tuple[Path, Path], tmp_path: Path) -> None:
    texts = set()
    for seed, zone in (("0", "UTC"), ("12345", "Asia/Tokyo")):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
        code = [sys.executable, "-c", _DIGEST, str(tmp_path / seed), *map(str, forty)]
        texts.add(subprocess.run(code, env=environment, check=True, capture_output=True, text=True).stdout)
        time.sleep(0.01)
    assert len(texts) == 1
