# ---------------------------------------------------------------------------
# train: base model and schedule -> fine-tuned weights, by accelerate and FSDP2
# ---------------------------------------------------------------------------
checkpoint train_model:
    input:
        *inputs_of("train"),
    output:
        sums=f"{R}/train/{{name}}/SHA256SUMS",
    log:
        f"{R}/logs/train/{{name}}.log",
    conda:
        "../envs/conda/train.yaml"
    threads: resource_of("train", "threads")
    resources:
        mem_mb=resource_of("train", "mem_mb"),
        runtime=resource_of("train", "runtime"),
        gpu=resource_of("train", "gpu"),
        nodes=nodes_of("train", "nodes"),
        mpi=nodes_of("train", "mpi"),
        tasks=nodes_of("train", "tasks"),
        tasks_per_gpu=nodes_of("train", "tasks_per_gpu"),
        slurm_extra=nodes_of("train", "slurm_extra"),
    params:
        spec=spec_of("train"),
        code=code_of("train"),
        lock=stage_lock("train"),
    message:
        "train {wildcards.name} [{resources.gpu} GPUs, {threads} threads, {resources.mem_mb} MB, {resources.runtime} min]"
    # exec: a shell in between would die of the warning before the time limit, and Slurm would then end the training
    # before its checkpoint is written.
    shell:
        "exec python -m scripts.train --spec {params.spec:q} --threads {threads:q}"
        " --inputs {input:q} --output {output.sums:q} > {log:q} 2>&1"


rule train:
    input:
        all_of("train"),
