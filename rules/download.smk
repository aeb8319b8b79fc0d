# ---------------------------------------------------------------------------
# download: pinned files -> one folder, checked byte for byte
# ---------------------------------------------------------------------------
checkpoint download_files:
    input:
        *inputs_of("download"),
    output:
        sums=f"{R}/download/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/download/{{name}}.log",
    conda:
        "../envs/conda/data.yaml"
    threads: resource_of("download", "threads")
    resources:
        mem_mb=resource_of("download", "mem_mb"),
        runtime=resource_of("download", "runtime"),
    params:
        spec=spec_of("download"),
        code=code_of("download"),
        lock=stage_lock("download"),
    message:
        "download {wildcards.name} [{threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    shell:
        "python -m scripts.download --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule download:
    input:
        all_of("download"),
