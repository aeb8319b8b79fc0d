"""`make bench`: every benchmark, one after another. Ratios are within one run; nothing here is asserted."""

import runpy
import sys

BENCHES = (
    "bench_workflow",
    "bench_artifact",
    "bench_pack",
    "bench_data",
    "bench_dedup",
    "bench_merge",
    "bench_benchmark",
    "bench_scorer",
    "bench_train",
)


def main() -> None:
    """Run the benches named on the command line, or all."""
    names = sys.argv[1:] or BENCHES
    sys.argv = sys.argv[:1]
    for name in names:
        print(f"== {name}", flush=True)
        try:
            runpy.run_module(f"tests.bench.{name}", run_name="__main__")
        except SystemExit as stop:  # one bench that lacks its data must not end the others
            print(stop.code)


if __name__ == "__main__":
    main()
