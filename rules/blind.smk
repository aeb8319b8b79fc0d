# ---------------------------------------------------------------------------
# blind: replies of the candidates -> a page for testers; on demand: `snakemake blind-test`
# ---------------------------------------------------------------------------
checkpoint build_blind_test:
    input:
        *inputs_of("blind"),
    output:
        sums=f"{R}/blind/SHA256SUMS",
    log:
        f"{R}/logs/blind.log",
    conda:
        "../envs/conda/report.yaml"
    threads: resource_of("blind", "threads")
    resources:
        mem_mb=resource_of("blind", "mem_mb"),
        runtime=resource_of("blind", "runtime"),
    params:
        spec=spec_of("blind"),
        code=code_of("blind"),
        lock=stage_lock("blind"),
    message:
        "blind test of {GRAPH.recipe.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.blind --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule:
    name:
        "blind-test"
    input:
        needed("blind", "blind_test: {models: [...]}"),
