"""The finished run of the tiny recipe that tests/pipeline makes."""

from tests.pipeline.conftest import bench, built

__all__ = ["bench", "built"]
