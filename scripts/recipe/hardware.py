"""CPU code paths pinned so that every x86-64 machine with AVX2 computes the same bits."""

import os

PORTABLE_ENV = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    # MKL_CBWR=AVX2 is not enough: its results differ between processors, COMPATIBLE's don't.
    "MKL_CBWR": "COMPATIBLE",
}

GPU_ENV = {
    # cuBLAS and flash attention choose reproducible algorithms only when told so, before they start.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
}


def pin_cpu() -> None:
    """Set the pins for this process; must run before torch is imported, which reads them once."""
    os.environ.update(PORTABLE_ENV)
