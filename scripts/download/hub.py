"""A Hugging Face repository at a fixed commit: addresses, access, and what the commit says of each file."""

import os
import re
from typing import TYPE_CHECKING

from scripts.artifact.stage import StageError
from scripts.download.part import Expected
from scripts.download.stream import RefusedError
from scripts.recipe.fetch import Fetch, Pin

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

TOKEN = "HF_TOKEN"  # noqa: S105 the name of the variable, not its value
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_LOOK_UP_S = 30.0


def token() -> str | None:
    """Return the access token of the environment; no file is searched and nothing is ever written.

    Raises:
        StageError: a value that can't be a token. It isn't shown: an HTTP library's own error would show it.
    """
    value = os.environ.get(TOKEN, "").strip()
    if value and not re.fullmatch(r"[!-~]+", value):
        raise StageError(f"the variable {TOKEN} holds spaces or characters that no token has; set it again")
    return value or None


def headers() -> dict[str, str]:
    """Return the request headers of this program, with the token if there is one."""
    value = token()
    return {"Authorization": f"Bearer {value}"} if value else {}


def address(fetch: Fetch, path: str) -> str:
    """Return the address of one file; HF_ENDPOINT names another server with the same interface."""
    from huggingface_hub import hf_hub_url

    kind, repository, commit = fetch.hub_parts()
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    return hf_hub_url(repository, path, repo_type=kind, revision=commit, endpoint=endpoint)


def look_up(fetch: Fetch, path: str, pin: Pin | None) -> Expected:
    """Return the digest and length that a file of the commit must have.

    Raises:
        StageError: no access, no such file or commit, a server that answers with another commit, a file that
            differs from its pin, or one without pin for which the server has no digest.
    """
    import httpx2
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    _, repository, commit = fetch.hub_parts()
    try:
        found = get_hf_file_metadata(
            address(fetch, path), token=token() or False, timeout=_LOOK_UP_S, retry_on_errors=True
        )
    except HfHubHTTPError as error:
        raise explain(_refusal(error), fetch, path) from None
    except OfflineModeIsEnabled:
        raise StageError(
            "offline mode is on: unset HF_HUB_OFFLINE; only the download stage needs the network"
        ) from None
    except httpx2.HTTPError as error:
        raise StageError(
            f"{path}: {repository} can't be reached ({type(error).__name__}: {error}); run snakemake again"
        ) from None
    where = f"{path}: {repository} at {commit}"
    if found.commit_hash != commit:
        raise StageError(f"{where}: the server answers with commit {found.commit_hash}")
    tag = found.etag or ""
    sha256 = tag if _SHA256.fullmatch(tag) else None
    git_sha1 = tag if _SHA1.fullmatch(tag) and found.size is not None else None
    if pin is None:
        if sha256 is None and git_sha1 is None:
            raise StageError(f"{where}: the server names no digest of this file; give it a sha256 in the recipe")
        return Expected(sha256, git_sha1, found.size)
    if sha256 not in {None, pin.sha256}:
        raise StageError(f"{where}: has SHA-256 {sha256}, the recipe pins {pin.sha256}; correct one")
    if None not in {pin.bytes, found.size} and pin.bytes != found.size:
        raise StageError(f"{where}: has {found.size:,} bytes, the recipe pins {pin.bytes:,}; correct one")
    return Expected(pin.sha256, git_sha1, found.size if found.size is not None else pin.bytes)


def _refusal(error: "HfHubHTTPError") -> RefusedError:
    return RefusedError(error.response.status_code, error.response.headers.get("X-Error-Code", ""))


def explain(refused: RefusedError, fetch: Fetch, path: str) -> StageError:
    """Return the error for people: what to accept, which variable to set, what to correct."""
    kind, repository, commit = fetch.hub_parts()
    where, status = f"{path}: {kind} {repository} at {commit}", refused.status
    if refused.code == "RevisionNotFound":
        return StageError(f"{where}: there is no such commit; correct `hub` in the recipe")
    if refused.code == "EntryNotFound" or (status == 404 and refused.code != "RepoNotFound"):
        return StageError(f"{where}: there is no such file; correct `files` in the recipe")
    if status in {401, 403, 404}:
        page = fetch.gated or f"the repository's page of {repository}"
        have = f"{TOKEN} is set, but its account has no access" if token() else f"{TOKEN} is not set"
        return StageError(
            f"{where}: the server refuses ({refused}); {have}. Accept the terms at {page} (or correct the name), "
            f"then set the variable {TOKEN} to a token of that account and run snakemake again"
        )
    if status == 429 or status >= 500:
        return StageError(f"{where}: status {status} in every attempt; wait and run snakemake again")
    return StageError(f"{where}: the server refuses ({refused})")
