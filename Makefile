# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
CORES ?= $(shell nproc 2>/dev/null || echo 2)
RECIPE ?= config/demo.yaml
# Sets $name, the folder below results/: the recipe's own name, not its file's. The default needs no look.
NAMED = name=$(if $(filter config/demo.yaml,$(RECIPE)),demo,$$($(BIN)/python -m scripts.recipe name $(RECIPE)))
# `make soak POINTS=100 SOAK=folder`: goes on where it was stopped.
POINTS ?= 100
SOAK ?= results/soak
# `make resume PROFILE=slurm-h100`: the profile names its recipe.
PROFILE ?=
# Jobs of `make audit`; SEED repeats an earlier draw.
N ?= 3
SEED ?=
SNAKEMAKE := $(BIN)/snakemake --show-failed-logs $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES) --configfile $(RECIPE))
export PYTHONPATH := $(CURDIR)
# A wheel of another Python's packages must not leak in.
export PYTHONNOUSERSITE := 1
export ATELIER_REAL_DATA ?= $(abspath ../shared/data)

# One line a job, and every error; Snakemake's exit status is kept.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
NOISE := ^(DAG of jobs|Select jobs|Execute [0-9]|Updating checkpoint|Building DAG|Finished jobid|Using shell|Provided cores|Rules claiming|Job stats|\[[A-Z]|Reason:|Config |host: |Complete log|Elapsed|Assuming unr|Singularity|$$)
PROGRESS := { grep --line-buffered -vE '$(NOISE)' || true; }

.PHONY: demo test install watch verify lock locks audit resume soak processors efficiency slurm-up slurm-test slurm-down rulegraph lint bench bench-gpu fuzz real clean-results help

help:  ## show the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: install  ## the whole workflow in small, then a scorecard
	@$(SNAKEMAKE) --quiet reason host 2>&1 | $(PROGRESS)
	@$(NAMED) && $(BIN)/python -m scripts.report scorecard results/$$name

test: install  ## the whole test suite
	$(BIN)/python -m pytest -n $(CORES)

install: .venv/installed  ## create .venv from the pinned lock

# torch==2.13.0 also admits 2.13.0+cpu: pip takes that one, without CUDA packages, where the index offers it.
.venv/installed: envs/local.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 " + sys.argv[1])' $(MAKECMDGOALS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r envs/local.lock
	touch $@

watch: install  ## show a running workflow: stages, progress, loss, memory, time left (ONCE=1: one frame)
	@$(BIN)/python -m scripts.watch $(if $(filter file,$(origin RECIPE)),,$(RECIPE)) $(if $(ONCE),--once)

verify: install  ## re-hash every artifact of RECIPE and name each bad file
	@$(NAMED) && $(BIN)/python -m scripts.artifact verify --deep results/$$name

lock: install  ## write locks/<recipe>.lock from the results
	@$(NAMED) && $(BIN)/python -m scripts.artifact lock results/$$name locks

locks: install  ## resolve envs/*.in again (needs a package index)
	@$(BIN)/python -m scripts.recipe locks

audit: install  ## do N=3 drawn jobs of RECIPE again in a clean folder and compare the bytes
	@$(NAMED) && $(BIN)/python -m scripts.artifact replay results/$$name --number $(N) $(if $(SEED),--seed $(SEED))

resume: install  ## after a crash: make sure no job is alive, unlock, go on
	@$(BIN)/python -m scripts.artifact guard .
	$(SNAKEMAKE) --unlock
	@$(SNAKEMAKE) --rerun-incomplete --quiet reason host 2>&1 | $(PROGRESS)

rulegraph: install  ## redraw docs/rulegraph.svg and docs/rulegraph.dot
	$(SNAKEMAKE) report --rulegraph > docs/rulegraph.dot
	dot -Tsvg docs/rulegraph.dot > docs/rulegraph.svg

real: install  ## the workflow on real files (folder: ATELIER_REAL_DATA)
	@test -d "$(ATELIER_REAL_DATA)" || { echo "no folder $(ATELIER_REAL_DATA): set ATELIER_REAL_DATA to the real files"; exit 1; }
	$(MAKE) demo RECIPE=tests/recipes/real.yaml

lint: install  ## formatter, linter, types, rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy
	$(BIN)/snakemake --lint

bench: install  ## speed, as ratios beside a peer in the same run
	$(BIN)/python -m tests.bench

soak: install  ## break the demo and the tiny recipe at random points, for hours (docs/reliability.md)
	$(BIN)/python -m tests.faults.soak --recipe tests/recipes/tiny.yaml --points $(POINTS) --folder $(SOAK)/tiny
	$(BIN)/python -m tests.faults.soak --recipe config/demo.yaml --points $(POINTS) --folder $(SOAK)/demo
	ATELIER_SOAK=1 $(BIN)/python -m pytest -rs tests/faults tests/security

processors: install  ## train as an Intel Haswell and as an AMD EPYC (needs qemu-user; 3 CPU minutes)
	ATELIER_PROCESSORS=1 $(BIN)/python -m pytest -rs tests/processors
fuzz: install  ## 20,000 malformed rows for each adapter of the clean stage
	ATELIER_FUZZ_ROWS=20000 $(BIN)/python -m pytest -n $(CORES) -k at_length tests/unit/test_clean_fuzz.py

efficiency: install  ## what the jobs of RECIPE asked for and what they used
	@$(BIN)/python -m scripts.report efficiency $(RECIPE)

slurm-up: install  ## start a private Slurm with virtual nodes and fake GPUs
	@$(BIN)/python -m tests.slurm.cluster up

slurm-test: install  ## run the recipes and the failure matrix on a private Slurm
	ATELIER_SLURM=1 $(BIN)/python -m pytest -rs tests/slurm

slurm-down: install  ## stop the private Slurm, name what is left of it
	@$(BIN)/python -m tests.slurm.cluster down

bench-gpu: install  ## 7B shape on one GPU: training beside HF Trainer (results/bench-gpu.json), benchmarks beside HFLM
	$(BIN)/python -m tests.bench.bench_gpu
	$(BIN)/python -m tests.bench.bench_scorer gpu

clean-results:  ## remove all results (read-only files, so by hand)
	rm -rf results .snakemake
