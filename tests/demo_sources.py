"""Write the five bundled demo sources: `python -m tests.demo_sources config/demo-sources`.

Own sample texts from the grammars in `tests/demo_texts/`, in the exact formats of five public sources, with planted
cases for the cleaner. Every choice is a keyed hash, so the same grammar gives the same bytes everywhere; a parquet
file also holds the version of pyarrow that wrote it.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.demo_texts.chats import write_claude, write_pippa
from tests.demo_texts.pairs import write_airoboros, write_openorca
from tests.demo_texts.stories import write_aidungeon
from tests.demo_texts.voice import Planted

FILES: dict[str, Callable[[Path], Planted]] = {
    "demo_pippa.jsonl": write_pippa,
    "demo_openorca.parquet": write_openorca,
    "demo_claude_multi.json": write_claude,
    "demo_airoboros.jsonl": write_airoboros,
    "demo_aidungeon.txt": write_aidungeon,
}


def main(folder: Path) -> None:
    """Rewrite all files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, write in FILES.items():
        planted = write(folder / name)
        print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes, planted {json.dumps(planted)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.demo_sources OUT_FOLDER")
    main(Path(sys.argv[1]))
