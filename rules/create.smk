# ---------------------------------------------------------------------------
# create: seed -> a small Llama and its tokenizer
# ---------------------------------------------------------------------------
checkpoint create_model:
    input:
        *inputs_of("create"),
    output:
        sums=f"{R}/create/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/create/{{name}}.log",
    conda:
        "../envs/conda/train.yaml"
    threads: resource_of("create", "threads")
    resources:
        mem_mb=resource_of("create", "mem_mb"),
        runtime=resource_of("create", "runtime"),
    params:
        spec=spec_of("create"),
        code=code_of("create"),
        lock=stage_lock("create"),
    message:
        "create {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.create --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule create:
    input:
        all_of("create"),
