"""Signatures of releases by OpenSSF model signing, with an EC key and without any network.

The signature lies beside the release, `<release>.sig`, since the release's own bytes are finished before it is signed;
`snakemake publish` uploads it as `model.sig`. Anyone verifies it with the library's own command line:
`python -m model_signing verify key --signature model.sig --public_key KEY.pub FOLDER`.
"""

import base64
import json
import os
from importlib import import_module
from pathlib import Path

from scripts.artifact.digest import FACTS, RECORD, SUMS, ArtifactError, read_sums, sha256_file
from scripts.artifact.verify import check_artifact

PUBLISHED_NAME = "model.sig"
PASSWORD = "ATELIER_KEY_PASSWORD"  # noqa: S105 - the name of a variable
# What a release has here or gets on the way, and nobody loads: the machine's record, the signature, a download's notes.
_UNSIGNED = (FACTS, PUBLISHED_NAME, ".cache")


def signature_path(release: Path) -> Path:
    """Return where the signature of a release lies."""
    return release.with_name(f"{release.name}.sig")


def sign(release: Path, key: Path, threads: int = 1) -> Path:
    """Verify every byte of a release, sign it, and return the signature's path.

    Args:
        release: folder of the release.
        key: EC private key, PEM; its password, if it has one, is taken from ATELIER_KEY_PASSWORD.
        threads: files hashed side by side.

    Raises:
        ArtifactError: damaged release, no usable key, or model_signing is not installed.
    """
    if not (release / SUMS).is_file():
        raise ArtifactError(f"{release}: holds no {SUMS}; name a finished release: results/<recipe>/release/<model>")
    faults = check_artifact(release, deep=True, threads=threads)
    if faults:
        raise ArtifactError(f"not signed, the release is damaged:\n{chr(10).join(map(str, faults[:10]))}")
    try:
        hashing, signing = (import_module(f"model_signing.{name}") for name in ("hashing", "signing"))
    except ImportError as error:
        raise ArtifactError(f"{error}; install it: pip install model-signing pyOpenSSL") from None
    files = hashing.Config().set_ignored_paths(paths=_UNSIGNED, ignore_git_paths=True)
    path = signature_path(release)
    draft = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    try:
        # Bytes: 1.1.1 says text, and hands it to a function that wants bytes.
        password = os.environ.get(PASSWORD, "").encode() or None
        signer = signing.Config().use_elliptic_key_signer(private_key=key, password=password)
        signer.set_hashing_config(files).sign(release, draft)
        os.replace(draft, path)
    except (OSError, ValueError, TypeError) as error:
        text = f"{key}: can't sign with it ({error}); needed: an EC private key in PEM, its password in {PASSWORD}"
        raise ArtifactError(text) from None
    finally:
        draft.unlink(missing_ok=True)
    return path


def signed_digests(signature: Path) -> dict[str, str]:
    """Return {file: SHA-256} that a signature speaks of. Whether it is genuine, only the public key can tell.

    Raises:
        ArtifactError: not a signature of this kind.
    """
    try:
        bundle = json.loads(signature.read_text(encoding="utf-8"))
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        return {str(entry["name"]): str(entry["digest"]) for entry in statement["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ArtifactError(f"{signature}: not a signature that can be read ({error}); sign again") from None


def stale_names(release: Path) -> list[str]:
    """Return which files have other bytes than the release's signature says; none where there is no signature.

    Raises:
        ArtifactError: see `signed_digests`.
    """
    if not signature_path(release).is_file():
        return []
    signed = signed_digests(signature_path(release))
    found = {**read_sums(release), **{name: sha256_file(release / name) for name in (SUMS, RECORD)}}
    return sorted(name for name in {*signed, *found} if signed.get(name) != found.get(name))
