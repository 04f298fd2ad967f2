"""How many threads BLAS may have. It reads that from the environment when numpy is imported."""

from __future__ import annotations


def blas(count: int) -> dict[str, str]:
    """The variables of a process whose BLAS may use `count` threads: OpenBLAS's, OpenMP's and MKL's."""
    return dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(count))
