# ---------------------------------------------------------------------------
# mix: episodes of all sources -> one mixture in the prompt format, with held-out rows
# ---------------------------------------------------------------------------
checkpoint mix_sources:
    input:
        *inputs_of("mix"),
    output:
        sums=f"{R}/mix/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/mix/{{name}}.log",
    conda:
        "../envs/conda/data.yaml"
    threads: resource_of("mix", "threads")
    resources:
        mem_mb=resource_of("mix", "mem_mb"),
        runtime=resource_of("mix", "runtime"),
    params:
        spec=spec_of("mix"),
        code=code_of("mix"),
        lock=stage_lock("mix"),
    message:
        "mix {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.mix --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule mix:
    input:
        all_of("mix"),
