"""Signatures: made offline with an EC key, accepted by model_signing's own command line, broken by any change."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.artifact.digest import SUMS, ArtifactError
from scripts.artifact.sign import sign, signature_path, signed_digests, stale_names
from tests.unit.test_publish import UploadServer, publish, release

__all__ = ["release"]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `private.pem` and `public.pem`, and a second pair `other*.pem`."""
    folder = tmp_path_factory.mktemp("keys")
    for private, public in (("private.pem", "public.pem"), ("other.pem", "other-public.pem")):
        ec = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", folder / private]
        subprocess.run(ec, check=True, capture_output=True)
        command = ["openssl", "ec", "-in", folder / private, "-pubout", "-out", folder / public]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def verified(folder: Path, signature: Path, key: Path) -> tuple[int, str]:
    """Run `model_signing verify key` as a receiver would, with the network closed to it."""
    closed = "import socket, sys\ndef no(*_, **__): raise OSError('no network here')\n"
    closed += "socket.socket.connect = no\nsocket.create_connection = no\n"
    closed += "from model_signing._cli import main; sys.argv[0] = 'model_signing'; main()"
    command = [sys.executable, "-c", closed, "verify", "key", "--signature", str(signature), "--public_key", str(key)]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_librarys_own_command_accepts_it_here_and_at_a_receiver(release: Path, keys: Path, tmp_path: Path) -> None:
    signature = sign(release, keys / "private.pem")
    assert signature == release.with_name("tiny.sig")
    code, said = verified(release, signature, keys / "public.pem")
    assert (code, "Verification succeeded" in said) == (0, True), said
    assert str(tmp_path) not in signature.read_text(), "it names no place of this machine"
    # As it comes from a hub: model.sig inside, no provenance.json, a note of the download.
    received = tmp_path / "received"
    subprocess.run(["cp", "-r", release, received], check=True)
    (received / "provenance.json").unlink()
    signature.rename(received / "model.sig")
    (received / ".cache" / "huggingface").mkdir(parents=True)
    (received / ".cache" / "huggingface" / "x.lock").touch()
    code, said = verified(received, received / "model.sig", keys / "public.pem")
    assert code == 0, said


@pytest.mark.parametrize("change", ["flipped", "missing", "added", "renamed", "other key"])
def test_any_change_breaks_it(release: Path, keys: Path, change: str) -> None:
    signature = sign(release, keys / "private.pem")
    weights = release / "model-00001-of-00002.safetensors"
    if change == "flipped":
        weights.write_bytes(b"A" + weights.read_bytes()[1:])
    elif change == "missing":
        weights.unlink()
    elif change == "added":
        (release / "more.txt").write_text("x")
    elif change == "renamed":
        weights.rename(release / "model-00003.safetensors")
    code, said = verified(release, signature, keys / ("other-public.pem" if change == "other key" else "public.pem"))
    assert code != 0
    assert change == "other key" or ("more.txt" if change == "added" else weights.name) in said


def test_what_is_damaged_is_not_signed(release: Path, keys: Path) -> None:
    (release / "README.md").write_text("other")
    with pytest.raises(ArtifactError, match="not signed, the release is damaged"):
        sign(release, keys / "private.pem")
    assert not signature_path(release).exists()
    with pytest.raises(ArtifactError, match="name a finished release"):
        sign(release.parent, keys / "private.pem")


def test_a_wrong_key_ends_in_one_message_and_leaves_nothing(release: Path, tmp_path: Path) -> None:
    for key in (tmp_path / "nowhere.pem", release / "README.md"):
        with pytest.raises(ArtifactError, match="needed: an EC private key"):
            sign(release, key)
    assert [path.name for path in release.parent.iterdir()] == ["tiny"]


def test_a_key_with_a_password(release: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked.pem"
    command = ["openssl", "ec", "-in", keys / "private.pem", "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ArtifactError, match="ATELIER_KEY_PASSWORD"):
        sign(release, locked)
    monkeypatch.setenv("ATELIER_KEY_PASSWORD", "secret")
    assert verified(release, sign(release, locked), keys / "public.pem")[0] == 0


def test_publication_brings_the_signature_and_refuses_a_stale_one(release: Path, keys: Path) -> None:
    sign(release, keys / "private.pem")
    assert stale_names(release) == []
    with UploadServer() as server:
        done = publish(release, "--owner=me", "--upload=yes", server=server)
        assert done.returncode == 0, done.stdout + done.stderr
        assert server.files["me/tiny"]["model.sig"] == signature_path(release).read_bytes()
    (release / "README.md").write_text("# another card\n")
    import scripts.artifact.digest as digest
    from scripts.artifact.record import write_record

    (release / SUMS).write_text(digest.format_sums(digest.hash_files(release, digest.payload_files(release))))
    write_record(release / digest.RECORD, {"value": digest.value_of(release)})
    assert stale_names(release) == ["README.md", "SHA256SUMS", "artifact.json"]
    done = publish(release)
    assert done.returncode == 1 and "README.md" in done.stderr and "sign again" in done.stderr
    signature_path(release).write_text("{}")
    done = publish(release)
    assert done.returncode == 1 and "not a signature that can be read" in done.stderr
    with pytest.raises(ArtifactError, match="sign again"):
        signed_digests(release / "README.md")
