"""Start-up of a job, from the start of Python to the first item, beside lm-eval's HFLM; then the demo's suites.

    PYTHONPATH=. python tests/bench/bench_benchmark.py [start]

The model is a random Llama of the demo's shape (128 wide, 4 layers); the tokenizer is a small one made here.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import yaml

from scripts.recipe.benchmark import BenchmarkSpec
from scripts.recipe.models import Suite
from tests.demo_benchmarks import FOLDER
from tests.unit.benchmark_tiny_model import write_mix, write_model

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3
JOB = """
import json, sys, time
from pathlib import Path
from scripts.artifact.stage import Job
from scripts.benchmark.build import build
from scripts.recipe.benchmark import BenchmarkSpec
job = Job(BenchmarkSpec.model_validate_json(sys.argv[1]), {k: Path(v) for k, v in json.loads(sys.argv[3]).items()},
          Path(sys.argv[2]), Path(sys.argv[2]), 1)
build(job)
print(json.dumps([job.facts, job.counts["items"]]))
"""

FIRST_ITEM = {
    "ours": """
import sys
from pathlib import Path
from scripts.artifact.stage import Job
from scripts.benchmark.build import build
from scripts.recipe.benchmark import BenchmarkSpec, Task
model, files, out = map(Path, sys.argv[1:])
tasks = {"sums": Task(format="multiple_choice", file="arithmetic.jsonl", limit=1)}
spec = BenchmarkSpec(model="tiny", suite="mini", tasks=tasks, device="cpu", dtype="float32", batch_size=1)
build(Job(spec, {"create/tiny": model, "download/mini": files}, out, out, 1))
""",
    "HFLM": """
import sys
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
model = HFLM(pretrained=sys.argv[1], device="cpu", dtype="float32", batch_size=1)
model.loglikelihood([Instance("loglikelihood", {}, ("One plus one is", " two"), 0, ("sums", 0, 1))], disable_tqdm=True)
""",
    "HFLM, lm-eval's evaluator": """
import sys
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
model = HFLM(pretrained=sys.argv[1], device="cpu", dtype="float32", batch_size=1)
""",
    "transformers alone": """
import sys
import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM
LlamaForCausalLM.from_pretrained(sys.argv[1])(torch.tensor([[1, 5, 9]]))
""",
}
"""Programs that load a model and score one item: a job of ours also reads, grades and writes."""


def start_up(model: Path, root: Path) -> None:
    """Print the median seconds of each program of FIRST_ITEM, all in turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in FIRST_ITEM}
    for turn in range(2 * RUNS):
        for name, program in FIRST_ITEM.items():
            out = root / f"start {turn} {name}"
            out.mkdir()
            started, cpu_s = time.perf_counter(), _children_cpu_s()
            line = [sys.executable, "-c", program, str(model), str(FOLDER), str(out)]
            subprocess.run(line, check=True, capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            found[name].append((time.perf_counter() - started, _children_cpu_s() - cpu_s))
    print("start to first item          wall s, median and best   CPU s, median and best")
    for name, runs in found.items():
        (wall, cpu) = (sorted(column) for column in zip(*runs[1:], strict=True))  # the first turn fills the page cache
        print(f"{name:28} {median(wall):6.2f} {wall[0]:6.2f} {median(cpu):16.2f} {cpu[0]:6.2f}")


def measure(suite: str, inputs: dict[str, Path], out: Path) -> dict[str, float]:
    """Return the seconds of one job in its own process, and of its parts."""
    tasks = Suite.model_validate(yaml.safe_load((ROOT / f"config/suites/{suite}.yaml").read_text())).tasks
    spec = BenchmarkSpec(
        model="tiny",
        suite=suite,
        tasks=tasks,
        mixtures=["all"],
        max_length=512,
        dtype="float32",
        device="cpu",
        portable_cpu=True,
    )
    out.mkdir()
    paths = json.dumps({name: str(path) for name, path in inputs.items()})
    started, cpu_s = time.perf_counter(), _children_cpu_s()
    run = subprocess.run(
        [sys.executable, "-c", JOB, spec.model_dump_json(), str(out), paths], check=True, capture_output=True, text=True
    )
    wall_s, cpu_s = time.perf_counter() - started, _children_cpu_s() - cpu_s
    facts, items = json.loads(run.stdout.splitlines()[-1])
    scoring_s = sum(facts["task_s"].values())
    count = sum(items.values())
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "start_s": wall_s - scoring_s,
        "scoring_s": scoring_s,
        "ms_per_item": 1000 * scoring_s / count,
    }


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print start-up, then the median run of each suite of the demo."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rows = [
            (f"row{i}", "tales", ["<|user|>Tell me more.", "<|model|>" + "The boat went on. " * 40]) for i in range(100)
        ]
        inputs = {"create/tiny": write_model(root / "tiny", hidden=128, layers=4, positions=512)}
        inputs |= {"download/demo": FOLDER, "mix/all": write_mix(root / "mix", rows)}
        start_up(inputs["create/tiny"], root)
        for suite in () if sys.argv[1:] == ["start"] else ("demo", "held-out"):
            runs = sorted(
                (measure(suite, inputs, root / f"{suite}{n}") for n in range(RUNS)), key=lambda run: run["wall_s"]
            )
            print(suite, {name: round(value, 2) for name, value in runs[RUNS // 2].items()})


if __name__ == "__main__":
    main()
