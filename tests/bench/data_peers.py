"""Peers of the data stages, run by an environment of their own: `PYTHON data_peers.py pack|map ...`. Prints JSON.

pack: TRL's `pack_dataset` (bfd) and axolotl's first-fit, rewritten here from its description, on given lengths.
map: chat rows -> text -> ids -> TRL's bfd, by `datasets.map` with two processes.
"""

import json
import sys
import time


def first_fit(lengths, capacity):  # type: ignore[no-untyped-def]
    """Return the number of bins of first fit in the given order, searched bin by bin as axolotl 067b021c does."""
    import numba
    import numpy as np

    @numba.njit
    def place(sizes, capacity, group):  # type: ignore[no-untyped-def]
        bins = 0
        for start in range(0, len(sizes), group):
            room = np.empty(group, dtype=np.int64)
            used = 0
            for size in sizes[start : start + group]:
                for index in range(used):
                    if room[index] >= size:
                        room[index] -= size
                        break
                else:
                    room[used] = capacity - size
                    used += 1
            bins += used
        return bins

    place(lengths[:10], capacity, 10)
    started = time.process_time()
    bins = place(lengths, capacity, 100_000)
    return bins, time.process_time() - started


def pack(path: str, capacity: int) -> None:
    """Time the packers on the lengths of an .npy file."""
    import numpy as np
    from datasets import Dataset
    from trl import pack_dataset

    lengths = np.load(path)
    found = {}
    rows = Dataset.from_dict({"input_ids": [[0] * int(n) for n in lengths[:100_000]]})
    for label, batch in (("TRL bfd, batches of 1,000", 1000), ("TRL bfd, whole table", len(rows))):
        started = time.process_time()
        packed = pack_dataset(rows, capacity, "bfd", {"batch_size": batch, "load_from_cache_file": False})
        found[label] = [len(packed), time.process_time() - started]
    found["first fit in order, groups of 100,000"] = list(first_fit(lengths[:100_000], capacity))
    print(json.dumps(found))


def render(batch):  # type: ignore[no-untyped-def]
    """Put chats into Metharme."""
    marker = {"human": "<|user|>", "gpt": "<|model|>"}
    return {"text": ["".join(marker[m["from"]] + m["value"].strip() for m in c) for c in batch["conversations"]]}


def chain(chats: str, tokenizer_json: str, capacity: int, cache: str) -> None:
    """Time the steps on one ShareGPT file; hashes nothing, filters nothing, removes no duplicates."""
    import datasets
    from tokenizers import Tokenizer
    from trl import pack_dataset

    datasets.disable_progress_bars()
    tokenizer = Tokenizer.from_file(tokenizer_json)
    started = time.perf_counter()
    rows = datasets.load_dataset("json", data_files=chats, split="train", cache_dir=cache)
    rows = rows.map(render, batched=True, remove_columns=rows.column_names, num_proc=2)

    def encode(batch):  # type: ignore[no-untyped-def]
        return {"input_ids": [e.ids for e in tokenizer.encode_batch_fast(batch["text"])]}

    rows = rows.map(encode, batched=True, remove_columns=["text"], num_proc=2)
    rows = rows.filter(lambda row: len(row["input_ids"]) <= capacity, num_proc=2)
    packed = pack_dataset(rows, capacity, "bfd")
    tokens = sum(map(len, packed["input_ids"]))
    import resource

    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({
        "wall_s": time.perf_counter() - started, "cpu_s": sum(u.ru_utime + u.ru_stime for u in usage),
        "rss_mib": max(u.ru_maxrss for u in usage) / 1024, "tokens": tokens,
    }))  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "pack":
        pack(sys.argv[2], int(sys.argv[3]))
    else:
        chain(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
