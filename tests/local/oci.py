"""OCI layouts made by hand: an image in the archives' own format, of a few files."""

from __future__ import annotations

import gzip
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

TAG = "1"


def make_layer(entries: Mapping[str, bytes | str]) -> bytes:
    """A tar of programs, or links where the value is text."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in entries.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_layout(
    folder: Path,
    layers: Sequence[bytes],
    config: Mapping[str, Any] | None = None,
    architecture: str = "amd64",
    raw: Mapping[str, bytes] | None = None,
) -> str:
    """Write it, and give the source as a person names it.

    `raw`: what stands in place of the "config" or the "manifest".
    """
    raw = raw or {}
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(content: bytes, kind: str) -> dict[str, Any]:
        digest = sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

    packed = [put(gzip.compress(layer, 1), "layer.v1.tar+gzip") for layer in layers]
    described = {
        "os": "linux",
        "architecture": architecture,
        "config": config or {},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(raw.get("config", json.dumps(described).encode()), "config.v1+json"),
        "layers": packed,
    }
    entry = put(raw.get("manifest", json.dumps(manifest).encode()), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": TAG}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return f"oci:{folder}:{TAG}"


def take_busybox(cache: Path, folder: Path) -> bytes:
    """A static program that is a whole userland, out of the packages of our own image."""
    (package,) = (cache / "debs").glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    (program,) = (path for path in folder.glob("**/bin/busybox") if not path.is_symlink())
    return program.read_bytes()


def take_debian(cache: Path) -> bytes:
    """A Debian base of this machine's own release, as a layer; made once, by mmdebstrap."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    made = cache / f"debian-{release}.tar"
    if not made.exists():
        partial = made.with_suffix(".partial.tar")
        command = ["mmdebstrap", "-q", "--variant=minbase", "--include=iputils-ping"]
        subprocess.run([*command, release, partial], check=True)
        partial.rename(made)
    return made.read_bytes()
