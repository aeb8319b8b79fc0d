# ---------------------------------------------------------------------------
# merge: two models -> one, tensor by tensor
# ---------------------------------------------------------------------------
checkpoint merge_models:
    input:
        *inputs_of("merge"),
    output:
        sums=f"{R}/merge/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/merge/{{name}}.log",
    conda:
        "../envs/conda/train.yaml"
    threads: resource_of("merge", "threads")
    resources:
        mem_mb=resource_of("merge", "mem_mb"),
        runtime=resource_of("merge", "runtime"),
    params:
        spec=spec_of("merge"),
        code=code_of("merge"),
        lock=stage_lock("merge"),
    message:
        "merge {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.merge --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule merge:
    input:
        all_of("merge"),
