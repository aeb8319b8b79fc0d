# ---------------------------------------------------------------------------
# release: a finished model -> a directory for the hub; on demand: `snakemake release`
# ---------------------------------------------------------------------------
checkpoint release_model:
    input:
        *inputs_of("release"),
    output:
        sums=f"{R}/release/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/release/{{name}}.log",
    conda:
        "../envs/conda/release.yaml"
    threads: resource_of("release", "threads")
    resources:
        mem_mb=resource_of("release", "mem_mb"),
        runtime=resource_of("release", "runtime"),
    params:
        spec=spec_of("release"),
        code=code_of("release"),
        lock=stage_lock("release"),
    message:
        "release {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.release --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule release:
    input:
        all_of("release"),


# ---------------------------------------------------------------------------
# publish: lists what it would upload; `--config publish=yes` uploads. Never a part of another target.
# ---------------------------------------------------------------------------
rule publish:
    input:
        all_of("release"),
    log:
        f"{R}/logs/publish.log",
    conda:
        "../envs/conda/release.yaml"
    resources:
        mem_mb=4000,
        runtime=720,
    params:
        owner=GRAPH.recipe.release.owner or "",
        private=GRAPH.recipe.release.private,
        answer=str(workflow.config_settings.config.get("publish", "no")),
    message:
        "publish {GRAPH.recipe.name}"
    shell:
        "set -o pipefail; HF_HUB_OFFLINE=0 python -m scripts.publish --owner={params.owner:q} --private={params.private:q}"
        " --upload={params.answer:q} {input:q} 2>&1 | tee {log:q}"
