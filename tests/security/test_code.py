"""R1, R2, R6: nothing in `scripts` can run what it reads: no pickle, no eval, no shell, no archive, no remote code."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = sorted((ROOT / "scripts").rglob("*.py"))
MODULES = {"pickle", "cPickle", "shelve", "marshal", "dill", "joblib", "cloudpickle", "runpy", "code", "codeop"}
# No stage takes archives: their names, links and sizes need not be feared (R6).
MODULES |= {"tarfile", "zipfile", "gzip", "bz2", "lzma"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "torch.load",
    "torch.save",
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "shutil.unpack_archive",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pandas.read_pickle",
    "np.lib.format.read_array",
}
# May open connections, each for one purpose; everything else has no reason to know the network.
NETWORK = {
    "socket",
    "ssl",
    "urllib.request",
    "http.client",
    "requests",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "aiohttp",
}
ONLINE = {"download", "publish"}
LOCAL_PORT = {"scripts/train/launch.py"}
BASES_BY_SHARDS = {"scripts/merge/remote.py"}
"""`merge ... remote`: a plan read from the headers on the hub, asked for by name; the stage does not use it."""


def findings(text: str, where: str) -> list[str]:
    """Return what a module's text does that no module may do."""
    found = []
    for node in ast.walk(ast.parse(text)):
        at = f"{where}:{getattr(node, 'lineno', 0)}"
        found += [f"{at} imports {name}" for name in imported(node) if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call):
            found += [f"{at} {what}" for what in called(node)]
    return found


def imported(node: ast.AST) -> list[str]:
    """Return the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def called(node: ast.Call) -> list[str]:
    """Return what is wrong with one call."""
    name = ast.unparse(node.func)
    words = {word.arg: word.value for word in node.keywords if word.arg}
    constants = {arg: value.value for arg, value in words.items() if isinstance(value, ast.Constant)}
    found = [f"calls {name}"] if name in NAMES | CALLS else []
    found += [f"passes {arg}=True" for arg in ("shell", "allow_pickle", "trust_remote_code") if constants.get(arg)]
    found += [
        f"passes {arg} that is not literal" for arg in ("shell", "trust_remote_code") if arg in words.keys() - constants
    ]
    if "weights_only" in words and constants.get("weights_only") is not True:
        found.append("passes weights_only other than True")
    if name.endswith(".from_pretrained"):
        found += [] if constants.get("trust_remote_code") is False else ["loads without trust_remote_code=False"]
        is_model = "Model" in name or "ForCausalLM" in name
        found += (
            ["loads weights without use_safetensors=True"] if is_model and not constants.get("use_safetensors") else []
        )
    if name == "subprocess.run" and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        found.append("gives a command as one text")
    return found


BAD = {
    "pickle": "import pickle",
    "pickle in a function": "def f():\n    from pickle import loads",
    "archive": "import tarfile",
    "eval": "eval('1')",
    "yaml": "import yaml\nyaml.load(x)",
    "torch.load": "import torch\ntorch.load('x')",
    "weights_only": "f(weights_only=False)",
    "allow_pickle": "np.load(p, allow_pickle=True)",
    "shell": "subprocess.run(['a'], shell=True)",
    "shell by a variable": "subprocess.run(['a'], shell=yes)",
    "one text": "subprocess.run(f'rm {name}')",
    "remote code": "AutoTokenizer.from_pretrained(p)",
    "remote code by a variable": "AutoTokenizer.from_pretrained(p, trust_remote_code=yes)",
    "any weights": "AutoModelForCausalLM.from_pretrained(p, trust_remote_code=False)",
}


@pytest.mark.parametrize("case", BAD)
def test_the_search_finds(case: str) -> None:
    assert findings(BAD[case], "x"), BAD[case]


def test_nothing_runs_what_it_reads() -> None:
    assert [text for path in SOURCES for text in findings(path.read_text(), path.relative_to(ROOT).as_posix())] == []


def test_only_download_and_publish_know_the_network() -> None:
    """R9 in the source; tests/security/test_whole_run.py proves it by a run without a network."""
    found = []
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        allowed = NETWORK if path.relative_to(ROOT / "scripts").parts[0] in ONLINE else set()
        allowed = {"socket"} if name in LOCAL_PORT else NETWORK if name in BASES_BY_SHARDS else allowed
        for node in ast.walk(ast.parse(path.read_text())):
            found += [f"{name} imports {m}" for m in imported(node) if network_of(m) - allowed]
    assert found == []


def network_of(module: str) -> set[str]:
    """Return the network module that an import brings."""
    return {known for known in NETWORK if module == known or module.startswith(f"{known}.")}


def test_stages_are_offline_by_the_rules_prefix() -> None:
    text = (ROOT / "Snakefile").read_text()
    assert "HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1" in text
    online = [path.name for path in (ROOT / "rules").glob("*.smk") if "HF_HUB_OFFLINE=0" in path.read_text()]
    assert online == ["release.smk"], "the rule `publish` lies there; `release` itself is offline"
    assert (ROOT / "rules/release.smk").read_text().count("HF_HUB_OFFLINE=0") == 1


def test_templates_of_foreign_origin_are_rendered_in_a_sandbox() -> None:
    """Plain jinja2 environments render our own pages, and a text of the pinned lm-eval whose digest is checked."""
    plain = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"Environment", "Template"}:
                plain.append(path.relative_to(ROOT).as_posix())
    assert sorted(plain) == [
        "scripts/benchmark/formats/truthfulqa.py",
        "scripts/blind/page.py",
        "scripts/report/formats.py",
    ]


def test_no_file_of_the_checkout_is_a_pickle() -> None:
    kinds = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npz", ".tar", ".zip", ".gz", ".so", ".pyc"}
    listed = [p for folder in ("config", "scripts", "rules", "envs", "locks") for p in (ROOT / folder).rglob("*")]
    assert [p for p in map(Path, listed) if p.suffix in kinds and "__pycache__" not in p.parts] == []
