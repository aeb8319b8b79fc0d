# ---------------------------------------------------------------------------
# report: all artifacts -> one page. The artifact is the same on every machine; report.html adds times, speed, memory.
# ---------------------------------------------------------------------------
checkpoint build_report:
    input:
        *inputs_of("report"),
    output:
        sums=f"{R}/report/SHA256SUMS",
        page=report(
            f"{R}/report.html",
            category="Report",
            caption="report.rst",
            labels={"recipe": GRAPH.recipe.name, "page": "whole report"},
        ),
    log:
        f"{R}/logs/report.log",
    conda:
        "../envs/conda/report.yaml"
    threads: resource_of("report", "threads")
    resources:
        mem_mb=resource_of("report", "mem_mb"),
        runtime=resource_of("report", "runtime"),
    params:
        spec=spec_of("report"),
        code=code_of("report"),
        lock=stage_lock("report"),
    message:
        "report {GRAPH.recipe.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.report --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"
        ' && python -m scripts.report page "$(dirname {output.page:q})" >> {log:q} 2>&1'


rule report:
    input:
        all_of("report"),
