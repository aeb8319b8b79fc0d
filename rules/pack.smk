# ---------------------------------------------------------------------------
# pack: mixture -> token ids, labels and the whole schedule (step, rank) -> rows
# ---------------------------------------------------------------------------
checkpoint pack_rows:
    input:
        *inputs_of("pack"),
    output:
        sums=f"{R}/pack/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/pack/{{name}}.log",
    conda:
        "../envs/conda/train.yaml"
    threads: resource_of("pack", "threads")
    resources:
        mem_mb=resource_of("pack", "mem_mb"),
        runtime=resource_of("pack", "runtime"),
    params:
        spec=spec_of("pack"),
        code=code_of("pack"),
        lock=stage_lock("pack"),
    message:
        "pack {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.pack --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule pack:
    input:
        all_of("pack"),
