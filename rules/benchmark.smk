# ---------------------------------------------------------------------------
# benchmark: model and suite -> canonical results
# ---------------------------------------------------------------------------
checkpoint benchmark_model:
    input:
        *inputs_of("benchmark"),
    output:
        sums=f"{R}/benchmark/{{name}}/{{suite}}/SHA256SUMS",
    log:
        f"{R}/logs/benchmark/{{name}}/{{suite}}.log",
    conda:
        "../envs/conda/benchmark.yaml"
    threads: resource_of("benchmark", "threads")
    resources:
        mem_mb=resource_of("benchmark", "mem_mb"),
        runtime=resource_of("benchmark", "runtime"),
        gpu=resource_of("benchmark", "gpu"),
    params:
        spec=spec_of("benchmark"),
        code=code_of("benchmark"),
        lock=stage_lock("benchmark"),
    message:
        "benchmark {wildcards.name} on {wildcards.suite} [{resources.gpu} GPUs, {threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.benchmark --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule benchmark:
    input:
        all_of("benchmark"),
