"""Write rows in a given order without holding them all: one pass deals them into buckets, one sorts each bucket."""

import shutil
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from itertools import accumulate, chain
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.artifact.workers import ahead

_SEGMENTS = pa.list_(pa.struct([("text", pa.string()), ("trained", pa.bool_())]))
SCHEMA = pa.schema([("id", pa.string()), ("source", pa.string()), ("segments", _SEGMENTS)])
_Waiting = tuple[int, str, str, Sequence[tuple[str, bool]]]
_DRAFT_SCHEMA = SCHEMA.append(pa.field("position", pa.int64()))

# A bucket is a row group: 8,192 rows of a mean 4 kB are 35 MB. More than 256 buckets would run into the usual
# limit of 1,024 open files for two splits and the rest, so a huge mixture gets larger buckets instead.
_BUCKET_ROWS = 8192
_MAX_BUCKETS = 256
# Rows that wait in memory for each bucket: 64 * 256 buckets * 4 kB = 67 MB at most.
_WAITING_ROWS = 64


class OrderedFile:
    """A parquet file whose rows arrive in any order, each with its position.

    Use as a context: `put` inside, and the file is complete on leaving. The bytes depend on the rows alone.
    """

    def __init__(self, path: Path, rows: int, work: Path, threads: int = 1) -> None:
        self._path, self._threads = path, threads
        self._bucket_rows = max(_BUCKET_ROWS, ceil(rows / _MAX_BUCKETS))
        self._folder = work / path.stem
        self._waiting: dict[int, list[_Waiting]] = defaultdict(list)
        self._drafts: dict[int, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> "OrderedFile":
        shutil.rmtree(self._folder, ignore_errors=True)  # of a killed attempt
        self._folder.mkdir(parents=True)
        return self

    def put(self, position: int, name: str, source: str, segments: Sequence[tuple[str, bool]]) -> None:
        """Add row number `position`: its id, its source, and (text, trained) of each segment."""
        bucket = position // self._bucket_rows
        self._waiting[bucket].append((position, name, source, segments))
        if len(self._waiting[bucket]) >= _WAITING_ROWS:
            self._flush(bucket)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                for bucket in sorted(self._waiting):
                    self._flush(bucket)
            self._open.close()
            if kind is None:
                with pq.ParquetWriter(self._path, SCHEMA, compression="zstd", compression_level=3) as writer:
                    for table in ahead(self._sorted_buckets(), self._threads):
                        writer.write_table(table, row_group_size=self._bucket_rows)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self, bucket: int) -> None:
        rows = self._waiting.pop(bucket)
        if bucket not in self._drafts:
            path = self._folder / f"{bucket}.arrows"
            self._drafts[bucket] = self._open.enter_context(pa.ipc.new_stream(path, _DRAFT_SCHEMA))
        positions, names, sources, segments = zip(*rows, strict=True)
        offsets = list(accumulate(map(len, segments), initial=0))
        texts, trained = zip(*chain.from_iterable(segments), strict=True)
        parts = pa.StructArray.from_arrays(
            [pa.array(texts, pa.string()), pa.array(trained, pa.bool_())], fields=list(_SEGMENTS.value_type)
        )
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), parts, type=_SEGMENTS)
        columns = [pa.array(names, pa.string()), pa.array(sources, pa.string()), lists, pa.array(positions, pa.int64())]
        self._drafts[bucket].write_batch(pa.RecordBatch.from_arrays(columns, schema=_DRAFT_SCHEMA))

    def _sorted_buckets(self) -> Generator[pa.Table]:
        for bucket in sorted(self._drafts):
            with pa.ipc.open_stream(self._folder / f"{bucket}.arrows") as reader:
                table = reader.read_all()
            # One chunk: how rows were dealt into batches must not show in the parquet pages.
            yield table.sort_by("position").drop_columns(["position"]).combine_chunks()
