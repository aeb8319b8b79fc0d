# ---------------------------------------------------------------------------
# Helpers of the rules: wiring only. What depends on what is decided in scripts/recipe/graph.py.
# ---------------------------------------------------------------------------
from functools import cache

from snakemake.exceptions import WorkflowError

from scripts.artifact.code import stage_code
from scripts.artifact.environment import stage_lock
from scripts.recipe.base import canonical_json
from scripts.recipe.cutoff import repair_early_cutoff
from scripts.recipe.graph import Graph, artifact_path
from scripts.recipe.load import load_recipe
from scripts.recipe.polling import limit_pauses
from scripts.recipe.problems import RecipeError
from scripts.recipe.resources import job_resources, node_resources
from scripts.recipe.targets import target_problem

# A stage has many jobs, but one code.
_stage_code = cache(stage_code)

CHECKPOINT = {
    "download": "download_files",
    "clean": "clean_source",
    "mix": "mix_sources",
    "create": "create_model",
    "pack": "pack_rows",
    "train": "train_model",
    "merge": "merge_models",
    "benchmark": "benchmark_model",
    "report": "build_report",
    "release": "release_model",
    "blind": "build_blind_test",
}

# Stages that are built only when asked for by name: `all` leaves them out.
ON_DEMAND = ("release", "blind")

# Keys of --config that are answers of the moment, not parts of a recipe.
ANSWERS = ("publish",)


def recipe_files():
    """Return the recipe's files: what --configfile names, else the demo."""
    named = list(workflow.config_settings.configfiles)
    return named or [ROOT / "config" / "demo.yaml"]


def load_graph():
    """Return all jobs of the recipe given by --configfile (default: the demo)."""
    if {"{", "}"} & set(str(ROOT)):
        raise WorkflowError(
            f"{ROOT}: Snakemake takes braces in a folder's name for wildcards; move the checkout to one without"
        )
    overrides = {
        key: value
        for key, value in workflow.config_settings.config.items()
        if key not in ANSWERS
    }
    try:
        graph = Graph(load_recipe(recipe_files(), ROOT, overrides))
    except RecipeError as error:
        raise WorkflowError(str(error)) from None
    # From the command line: Snakemake tells its targets too late, when it shows every error with a traceback.
    if wrong := target_problem(graph, sys.argv[1:]):
        raise WorkflowError(wrong)
    return graph


def name_of(wildcards):
    """Return an artifact's name below its stage: `model/suite` for benchmarks, empty for the report."""
    return "/".join(
        wildcards.get(key) for key in ("name", "suite") if key in wildcards.keys()
    )


def settled(artifact):
    """Return the SHA256SUMS of an artifact, once its checkpoint is settled: this gives the early cutoff."""
    stage, name = artifact
    values = dict(zip(("name", "suite"), name.split("/"))) if name else {}
    return getattr(checkpoints, CHECKPOINT[stage]).get(**values).output.sums


def inputs_of(stage):
    """Return one input function for each input slot of a stage's jobs.

    One function a slot, since a function stops at its first unsettled checkpoint: a single one for all inputs
    would build them one after another and hide the rest from `-n`.
    """

    def slot(index):
        def find(wildcards):
            inputs = GRAPH.jobs[(stage, name_of(wildcards))].inputs
            return settled(inputs[index]) if index < len(inputs) else []

        return find

    return [slot(index) for index in range(GRAPH.width(stage))]


def all_of(*stages):
    """Return one input function for each artifact of the stages: the aggregate targets."""

    def one(artifact):
        return lambda wildcards: settled(artifact)

    return [
        one((job.stage, job.name))
        for stage in stages
        for job in GRAPH.of_stage(stage)
        if (job.stage, job.name) not in GRAPH.on_demand
    ]


def needed(stage, setting):
    """Return `all_of(stage)`, or an input function that says which setting of the recipe is missing."""

    def missing(wildcards):
        raise WorkflowError(
            f"recipe {GRAPH.recipe.name} asks for no {stage} test; add to it: {setting}"
        )

    return all_of(stage) or [missing]


def spec_of(stage):
    """Return a params function: the job's own part of the recipe as canonical JSON, and nothing else of it."""
    return lambda wildcards: canonical_json(
        GRAPH.jobs[(stage, name_of(wildcards))].spec.model_dump(mode="json")
    )


def code_of(stage):
    """Return a params function: the digest of the stage's code, computed only for a job that is looked at.

    A Slurm job parses these files again for its one rule: all stages' code would take it half a second.
    """
    return lambda wildcards: _stage_code(stage)


def gpu_model_of(stage):
    """Return the GPU's name that the profile gives to this stage's rule, or an empty string."""
    given = workflow.resource_settings.overwrite_resources.get(CHECKPOINT[stage], {})
    return (
        str(given["gpu_model"].raw or "").strip("'\"") if "gpu_model" in given else ""
    )


def resource_of(stage, key):
    """Return a resources function that asks the recipe: `gpu`, `mem_mb`, `runtime` (minutes), `threads`."""
    return lambda wildcards, attempt=1: job_resources(
        GRAPH, (stage, name_of(wildcards)), attempt
    )[key]


def nodes_of(stage, key):
    """Return a resources function for a job of several nodes: `nodes`, `tasks` and what else Slurm must be told."""
    return lambda wildcards: node_resources(
        GRAPH, (stage, name_of(wildcards)), gpu_model_of(stage)
    )[key]


def print_costs():
    """Print what the jobs of a dry run will take, unless --quiet was asked for."""
    if not workflow.dryrun or workflow.dag is None or workflow.output_settings.quiet:
        return
    from scripts.recipe.cost import table, takes

    stages = {rule: stage for stage, rule in CHECKPOINT.items()}
    asked = {
        (stages[job.rule.name], name_of(job.wildcards)): {
            key: int(job.resources.get(key, 0)) for key in ("gpu", "mem_mb", "runtime")
        }
        for job in workflow.dag.needrun_jobs(exclude_finished=False)
        if job.rule.name in stages
    }
    gpus = {stage: gpu_model_of(stage) for stage in CHECKPOINT}
    if asked:
        price = GRAPH.recipe.price_per_gpu_hour
        print("", *table(takes(GRAPH, asked, gpus, Path(R)), price), sep="\n")


repair_early_cutoff()
limit_pauses()
