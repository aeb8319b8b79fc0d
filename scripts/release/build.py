"""The release stage: a finished model becomes a folder ready for the hub."""

import json
import os
import re
import shutil
from pathlib import Path

from scripts.artifact.digest import RECORD, read_sums, value_of
from scripts.artifact.lock import Entry, format_lock
from scripts.artifact.record import read_record
from scripts.artifact.stage import Job, StageError
from scripts.recipe.checkpoints import in_checkpoint
from scripts.recipe.exports import as_yaml as yaml_text
from scripts.recipe.exports import eval_results, markdown
from scripts.recipe.release import ReleaseSpec
from scripts.recipe.tokenizer import SentencePieceTokenizer, TokenizerError
from scripts.recipe.tokenizer_files import converted
from scripts.release.card import card
from scripts.release.chart import loss_chart
from scripts.release.clients import client_files
from scripts.release.datacard import data_card
from scripts.release.gguf_file import write_gguf
from scripts.release.results import benchmark_rows, losses

NEEDED = ("config.json", "generation_config.json", "tokenizer_config.json")
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
"""One is enough: models since Llama 3 have no sentencepiece model. GGUF is written from that alone."""

LICENCE_FILES = r"(licen[cs]e|notice|use_policy)[^/]*"


def build(job: Job[ReleaseSpec]) -> None:
    """Write the release: weights, tokenizer, cards, results, client presets, GGUF, recipe and lock.

    Raises:
        StageError: the model lacks a file that a release must have, or can't be written as GGUF.
    """
    spec, (name, source) = job.spec, next(iter(job.inputs.items()))
    take_model(job, name, source)
    take_licences(job, name)
    rows = benchmark_rows(spec, job.of_stage("benchmark"))
    suites = {suite: facts.model_dump() for suite, facts in spec.suites.items()}
    curves = [losses(training.model, job.inputs[f"train/{training.model}"]) for training in spec.trainings]
    eos = end_token(source) if spec.format else ""
    texts = {
        "README.md": card(spec, job.inputs, rows, curves, eos),
        "DATASETS.md": data_card(spec, job.of_stage("mix")),
        "recipe.yaml": spec.recipe_file,
        "recipe.lock": lock_of(job),
        **{f"{curve.model}-loss.svg": loss_chart(curve) for curve in curves},
        **(client_files(spec.format, spec.model, eos) if spec.format else {}),
    }
    if rows:
        texts["benchmarks.md"] = markdown(spec.model, rows, suites)
    for suite, entries in eval_results(rows, suites).items():
        texts[f".eval_results/{suite}.yaml"] = yaml_text(entries)
    for path, text in texts.items():
        (job.out / path).parent.mkdir(parents=True, exist_ok=True)
        (job.out / path).write_text(text, encoding="utf-8")
    for kind in dict.fromkeys(spec.settings.gguf):
        write_gguf(source, job.out / f"{spec.model}-{kind.upper()}.gguf", kind, spec.model, spec.settings)
    job.counts.update(lineage={n: value_of(p) for n, p in sorted(job.inputs.items())}, benchmarks=len(rows))


def take_model(job: Job[ReleaseSpec], name: str, source: Path) -> None:
    """Link or copy the model's files, with the digests that its own artifact gives them; complete the tokenizer."""
    sums = read_sums(source)
    missing = [file for file in NEEDED if file not in sums]
    missing += [" or ".join(TOKENIZERS)] * sums.keys().isdisjoint(TOKENIZERS)
    missing += ["*.safetensors"] * (not any(file.endswith(".safetensors") for file in sums))
    if missing:
        raise StageError(
            f"{name}: a release needs {', '.join(NEEDED)}, {' or '.join(TOKENIZERS)}, and *.safetensors; missing: "
            f"{', '.join(missing)}; add them to the model's download"
        )
    if job.spec.settings.gguf and "tokenizer.model" not in sums:
        raise StageError(
            f"{name}: GGUF is written from tokenizer.model, and this model has tokenizer.json only; set "
            "`release: {gguf: []}` to release it without GGUF"
        )
    for file, digest in sums.items():
        # A merge's own card, of which the release's says the same and more; checkpoints are no part of the model.
        if file == "README.md" or (name.startswith("train/") and in_checkpoint(file)):
            continue
        target = job.out / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".safetensors"):
            link_or_copy(source / file, target)
        else:
            shutil.copyfile(source / file, target)
        job.digests[file] = digest
    job.tensors.update(read_record(source / RECORD).get("tensors", {}))
    if "tokenizer.json" not in sums:
        try:
            made = converted(SentencePieceTokenizer((source / "tokenizer.model").read_bytes()))
        except TokenizerError as error:
            raise StageError(f"{name}: {error}") from None
        (job.out / "tokenizer.json").write_text(made.to_str(pretty=True) + "\n", encoding="utf-8")
    if "chat_template.jinja" not in sums:
        template = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
        if isinstance(template, str):
            (job.out / "chat_template.jinja").write_text(template, encoding="utf-8")


def take_licences(job: Job[ReleaseSpec], model: str) -> None:
    """Copy the licence files of all downloaded models that the release is made from; write the NOTICE, if asked for."""
    for name, source in job.of_stage("download").items():
        sums = read_sums(source)
        if f"download/{name}" == model or "config.json" not in sums:  # taken with the model; a data set
            continue
        for file in (f for f in sums if re.fullmatch(LICENCE_FILES, f, re.IGNORECASE)):
            target = job.out / "licenses" / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target)
            job.digests[f"licenses/{name}/{file}"] = sums[file]
    if job.spec.settings.notice_text and "NOTICE" not in job.digests:
        (job.out / "NOTICE").write_text(job.spec.settings.notice_text + "\n", encoding="utf-8")


def end_token(model: Path) -> str:
    """Return the text of a model's end token; transformers writes it as a string or as an object with `content`."""
    eos = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8")).get("eos_token")
    text = eos.get("content") if isinstance(eos, dict) else eos
    if not isinstance(text, str):
        raise StageError(f"{model / 'tokenizer_config.json'}: names no eos_token; add it to the model's download")
    return text


def link_or_copy(source: Path, target: Path) -> None:
    """Give a weight file a second name (26 GB at 13B need no second copy), or copy it where links don't work."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def lock_of(job: Job[ReleaseSpec]) -> str:
    """Return the lock of all inputs, to hold a rebuild against: `python -m scripts.artifact compare --listed`.

    Keys are left out: the same bytes may have come about under another key, and the release must not depend on it.
    """
    entries = []
    for name, folder in job.inputs.items():
        stage, _, rest = name.partition("/")
        size = sum((folder / file).stat().st_size for file in read_sums(folder))
        entries.append(Entry(stage, rest, "-", value_of(folder), size))
    return format_lock(entries)
