# ---------------------------------------------------------------------------
# clean: raw source -> episodes, refused rows and an audit
# ---------------------------------------------------------------------------
checkpoint clean_source:
    input:
        *inputs_of("clean"),
    output:
        sums=f"{R}/clean/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/clean/{{name}}.log",
    conda:
        "../envs/conda/data.yaml"
    threads: resource_of("clean", "threads")
    resources:
        mem_mb=resource_of("clean", "mem_mb"),
        runtime=resource_of("clean", "runtime"),
    params:
        spec=spec_of("clean"),
        code=code_of("clean"),
        lock=stage_lock("clean"),
    message:
        "clean {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.clean --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule clean:
    input:
        all_of("clean"),
