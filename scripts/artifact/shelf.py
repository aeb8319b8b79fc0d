"""The shared store as one job sees it: its trouble costs its use, never the job; only two values for a key stop it."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.artifact.digest import FACTS, RECORD, ArtifactError
from scripts.artifact.publish import differs_folder
from scripts.artifact.record import key_of, write_record
from scripts.artifact.store import STORE, ConflictError, PoisonedError, Store, open_store


@dataclass(frozen=True)
class Shelf:
    """Where a job looks before it works, and puts its artifact afterwards."""

    fields: Mapping[str, Any]
    """What the job's key is made of."""
    threads: int
    store: Store | None

    @classmethod
    def of_environment(cls, fields: Mapping[str, Any], threads: int) -> "Shelf":
        """Return the shelf of the store that ATELIER_STORE names, if it does."""
        return cls(fields, threads, open_store(os.environ.get(STORE)))

    def take(self, draft: Path, name: str) -> dict[str, Any] | None:
        """Fill the empty folder `draft` with the finished artifact of this key; return its record, or None."""
        if self.store is None:
            return None
        try:
            record = self.store.fetch(self.fields, draft, self.threads)
        except PoisonedError as error:
            print(f"{STORE}: {name}: refused a damaged entry, building instead: {error}")
            return None
        except OSError as error:
            print(f"{STORE}: {name}: not looked up, building instead: {error}")
            return None
        key = key_of(dict(self.fields))
        if record is None:
            print(f"{STORE}: {name}: no entry of key {key[:16]}")
            return None
        facts = self.store.facts(key)
        record = {**record, "name": name}  # another recipe may call the same work otherwise
        write_record(draft / RECORD, record)
        write_record(draft / FACTS, {**facts, "restored_unix": time.time()})
        print(f"{STORE}: {name}: restored from key {key[:16]}, made on {facts.get('host', 'an unknown host')}")
        return record

    def refuse_conflict(self, draft: Path, target: Path) -> None:
        """Stop before publication if the store has another value for this key; the draft is kept beside `target`.

        Raises:
            ConflictError: it has; the next run takes the store's.
        """
        if self.store is None:
            return
        try:
            self.store.check(draft, self.threads)
        except ConflictError as error:
            aside = differs_folder(target)
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(draft, aside)
            raise ConflictError(
                f"{error}. What was made here is kept in {aside}; run snakemake again to take the store's, or remove "
                "the store's entry first to put this one into its place"
            ) from None

    def give(self, folder: Path) -> None:
        """Put a published artifact into the store, if it is not there.

        Raises:
            ConflictError: the store has another value for this key; `folder` stays as it is.
        """
        if self.store is None:
            return
        try:
            self.store.add(folder, self.threads)
        except ConflictError as error:
            raise ConflictError(
                f"{error}. To take the store's: rm -r {folder}, and run snakemake again; to keep this one: remove the "
                "store's entry"
            ) from None
        except (OSError, ArtifactError) as error:
            print(f"{STORE}: not stored: {error}")
