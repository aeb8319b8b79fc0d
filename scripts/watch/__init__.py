"""Live view of a running workflow in the terminal. Reads what the stages and Snakemake write anyway; writes nothing."""
