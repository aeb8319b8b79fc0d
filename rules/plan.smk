# ---------------------------------------------------------------------------
# plan: what each training of the recipe will take, before it; an answer, not an artifact
# ---------------------------------------------------------------------------
rule plan:
    log:
        f"{R}/logs/plan.log",
    resources:
        gpu_model="",
        mem_mb=4000,
        runtime=10,
    params:
        recipes=recipe_files(),
    message:
        "plan {GRAPH.recipe.name}"
    shell:
        "python -m scripts.train plan {params.recipes:q} --gpu={resources.gpu_model:q} 2>&1 | tee {log:q}"
