"""Atelier: from raw chat logs to released, merged and benchmarked weights. `snakemake` alone runs the demo."""

import atexit
import shlex
import sys
from pathlib import Path

from snakemake.utils import min_version

min_version("9.27")

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))


# Only with `--sdm apptainer`: the image of envs/atelier.def, built once beside the Snakefile.
container: "atelier.sif"


include: "rules/common.smk"


GRAPH = load_graph()
R = f"results/{GRAPH.recipe.name}"
# After all that Snakemake prints itself; it does nothing but after a dry run.
atexit.register(print_costs)

# Stages find the package and the interpreter of this environment from any working directory, unless Snakemake brings
# an environment of its own (--sdm); only `download` goes to the network. Changing the prefix reruns nothing.
OWN_BIN = (
    ""
    if workflow.deployment_settings.deployment_method
    else f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"'
)
shell.prefix(
    f"export {OWN_BIN}"
    f" PYTHONPATH={shlex.quote(str(ROOT))} HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1; "
)


wildcard_constraints:
    name="[A-Za-z0-9._@-]+",
    suite="[A-Za-z0-9._-]+",


localrules:
    all,
    download_files,
    build_report,
    build_blind_test,
    plan,
    publish,


# Every artifact of the recipe but those on demand, the intermediate ones too: else a lost or removed one would go
# unnoticed.
rule all:
    default_target: True
    input:
        all_of(*(stage for stage in CHECKPOINT if stage not in ON_DEMAND)),


include: "rules/download.smk"
include: "rules/clean.smk"
include: "rules/mix.smk"
include: "rules/create.smk"
include: "rules/pack.smk"
include: "rules/plan.smk"
include: "rules/train.smk"
include: "rules/merge.smk"
include: "rules/benchmark.smk"
include: "rules/report.smk"
include: "rules/release.smk"
include: "rules/blind.smk"
