"""Near-duplicates by datatrove and datasketch, in their own environment: `peer_dedup NAME DOCS FOLDER`.

Prints JSON: CPU seconds without imports, and the rows that go. Imports nothing of ours.
"""

import json
import sys
import time
from pathlib import Path

BANDS, ROWS = 16, 7


def datatrove(texts: list[str], folder: Path) -> list[int]:
    """Run datatrove's signature, bucket and cluster steps in this process."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    config = MinhashConfig(num_buckets=BANDS, hashes_per_bucket=ROWS)
    rows = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
    MinhashDedupSignature(str(folder / "signatures"), config).run(iter(rows), 0, 1)
    for bucket in range(BANDS):
        MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config).run(None, bucket, BANDS)
    MinhashDedupCluster(str(folder / "buckets"), str(folder / "removed"), config=config).run(None, 0, 1)
    removed = folder / "removed" / "000000.remove"
    return memoryview(removed.read_bytes()).cast("I").tolist() if removed.is_file() else []


def datasketch(texts: list[str], folder: Path) -> list[int]:
    """Run datasketch's MinHash and LSH; shingles by a regex, as its examples do. A row with an older twin goes."""
    import re

    from datasketch import MinHash, MinHashLSH

    index, gone = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS)), []
    for number, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        sketch = MinHash(num_perm=BANDS * ROWS)
        sketch.update_batch([" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)])
        if index.query(sketch):
            gone.append(number)
        index.insert(number, sketch)
    return gone


if __name__ == "__main__":
    from loguru import logger

    logger.remove()
    run = {"datatrove": datatrove, "datasketch": datasketch}[sys.argv[1]]
    documents = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    run(documents[:2], Path(sys.argv[3]) / "warm")
    start = time.process_time()
    removed = run(documents, Path(sys.argv[3]) / "real")
    print(json.dumps({"cpu_s": time.process_time() - start, "removed": removed}))
