"""Where a foreign image comes from, and fetching it by skopeo into an OCI layout of ours.

skopeo knows the registries, their logins (its own files) and the archives' formats, and holds every
blob against its digest. What it has no limits for is limited here: bytes, time, and silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import DeadlineExceeded, ImageError, SetupError, StorageFull, UsageError
from swarm_tui.local.oci.limits import Limits
from swarm_tui.outpost.programs import environment
from swarm_tui.text import Untrusted, sanitize

ARCHITECTURE: Final = "amd64"
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
MANIFEST_BYTES: Final = 4 << 20

_FILES: Final = ("oci", "oci-archive", "docker-archive")
_NAME: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE: Final = re.compile(
    # As in the OCI distribution specification; a host with a port before it.
    rf"(?:(?:[A-Za-z0-9.-]+)(?::\d{{1,5}})?/)?{_NAME}(?:/{_NAME})*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
_POLICY: Final = '{"default":[{"type":"insecureAcceptAnything"}]}'
"""skopeo wants one; Debian's own default, where there is none."""
_POLICIES: Final = ("~/.config/containers/policy.json", "/etc/containers/policy.json")
_UNREACHABLE: Final = re.compile(
    r"no such host|connection refused|i/o timeout|network is unreachable|no route to host"
    r"|connection reset|TLS handshake|deadline exceeded|proxyconnect|server misbehaving"
)
_POLL_S: Final = 0.1
_WORDS: Final = 4000


@dataclass(frozen=True, slots=True)
class Source:
    """An image as skopeo is asked for it."""

    given: str
    """As a person wrote it."""
    transport: str
    place: str

    @property
    def words(self) -> str:
        return f"docker://{self.place}" if self.transport == "docker" else self.given_absolute

    @property
    def given_absolute(self) -> str:
        return f"{self.transport}:{self.place}"

    @property
    def default_name(self) -> str:
        """One that would do for the built image."""
        last = self.place.partition("@")[0].rstrip("/").rpartition("/")[2]
        plain = re.sub(r"\.(tar|oci)(\.\w+)?(?=:|$)", "", last).removesuffix(":latest")
        return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60] or "image"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which image a source is at this moment."""

    digest: str
    """Of its manifest, after a choice of our architecture."""
    source: Source
    """By that digest, where the source can be asked so."""


def parse_source(text: str) -> Source:
    """Raises UsageError."""
    transport, separator, place = text.partition(":")
    if separator and transport in _FILES:
        path, _, tag = place.partition(":")
        if not path or "\0" in path or not Path(path).exists():
            raise UsageError("There is no such image", repr(text))
        return Source(text, transport, ":".join(filter(None, (str(Path(path).resolve()), tag))))
    reference = text.removeprefix("docker://")
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(
            "Not an image's source",
            repr(text),
            "It is oci:DIR:TAG, oci-archive:FILE, docker-archive:FILE, docker://… or debian:12.",
        )
    return Source(text, "docker", reference)


def look(source: Source, work: Path, limits: Limits) -> Manifest:
    """Ask for the manifest alone. `work` is a folder for what skopeo keeps meanwhile.

    Raises ImageError, SetupError, DeadlineExceeded, StorageFull.
    """
    raw = _skopeo(["inspect", "--raw", "--no-tags", source.words], work, limits, limits.stall_s)
    manifest = parse_object(raw, "the manifest")
    digest = "sha256:" + hashlib.sha256(raw).hexdigest()
    if "manifests" in manifest:
        digest = _choose(manifest)
    if source.transport == "docker":
        repository = source.place.partition("@")[0]
        head, slash, last = repository.rpartition("/")
        place = f"{head}{slash}{last.partition(':')[0]}@{digest}"
        return Manifest(digest, Source(source.given, "docker", place))
    return Manifest(digest, source)


def fetch(manifest: Manifest, target: Path, work: Path, limits: Limits) -> None:
    """Copy it into an OCI layout with one image at `target`. Raises as `look`."""
    options = ["--override-os", "linux", "--override-arch", ARCHITECTURE, "copy", "-q"]
    options += ["--remove-signatures", "--dest-oci-accept-uncompressed-layers"]
    words = [*options, manifest.source.words, f"oci:{target}:image"]
    _skopeo(words, work, limits, limits.fetch_s, target)


def parse_object(raw: bytes, what: str) -> Mapping[str, Any]:
    """JSON that somebody else wrote. Raises ImageError."""
    if len(raw) > MANIFEST_BYTES:
        raise ImageError(f"This is no image: {what} has more than {MANIFEST_BYTES:,} bytes")
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"This is no image: {what} cannot be read", str(error)) from error
    if not isinstance(parsed, dict):
        raise ImageError(f"This is no image: {what} is no object")
    return parsed


def _choose(index: Mapping[str, Any]) -> str:
    listed = index["manifests"]
    offered = []
    for entry in listed if isinstance(listed, list) else ():
        platform = entry.get("platform") if isinstance(entry, dict) else None
        if not isinstance(platform, dict):
            continue
        kind = f"{platform.get('os')}/{platform.get('architecture')}"
        digest = entry.get("digest")
        if kind == f"linux/{ARCHITECTURE}" and isinstance(digest, str) and DIGEST.fullmatch(digest):
            return digest
        offered.append(str(sanitize(kind, max_cells=40)))
    raise ImageError(
        f"The image is not made for linux/{ARCHITECTURE}",
        "It is made for " + (", ".join(offered[:20]) or "nothing that it names") + ".",
    )


def _skopeo(
    words: Sequence[str], work: Path, limits: Limits, limit_s: float, target: Path | None = None
) -> bytes:
    policy = work / "policy.json"
    options = ["--tmpdir", str(work)]
    if not any(Path(path).expanduser().exists() for path in _POLICIES):
        policy.write_text(_POLICY)
        options += ["--policy", str(policy)]
    # No file of it can be longer than all of them may be, however fast it is written.
    command = ["sh", "-c", 'ulimit -f "$1" && shift && exec "$@"', "sh"]
    command += [str(limits.compressed_bytes // 512 + 1), "skopeo", *options, *words]
    out, err = work / "skopeo.out", work / "skopeo.err"
    try:
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment({"TMPDIR": str(work)}),
                cwd=work,
                start_new_session=True,
                umask=0o077,
            )
            try:
                _wait(process, [work, target], limits, limit_s)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode == -signal.SIGXFSZ:
            raise ImageError("The image is larger than it may be, packed")
        if process.returncode != 0:
            raise _failure(err.read_bytes()[-_WORDS:])
        return out.read_bytes()[: MANIFEST_BYTES + 1]
    finally:
        out.unlink(missing_ok=True)
        err.unlink(missing_ok=True)


def _wait(
    process: subprocess.Popen[bytes],
    folders: Sequence[Path | None],
    limits: Limits,
    limit_s: float,
) -> None:
    began = moved = time.monotonic()
    seen = 0
    while True:
        try:
            process.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            size = sum(_size(folder) for folder in folders if folder)
            now = time.monotonic()
            if size != seen:
                seen, moved = size, now
            if size > limits.compressed_bytes:
                limit = f"{limits.compressed_bytes >> 20:,} MiB"
                raise ImageError(f"The image is larger than {limit}, packed") from None
            if now - moved > limits.stall_s or now - began > limit_s:
                raise DeadlineExceeded(
                    "The image's source does not answer",
                    f"Nothing came for {now - moved:.0f} s; {seen:,} bytes in {now - began:.0f} s.",
                    "Check the network and the proxy (HTTPS_PROXY), then try again.",
                ) from None


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # it was renamed or removed meanwhile
                continue
    return total


def _failure(stderr: bytes) -> SetupError | StorageFull | ImageError:
    words = Untrusted(stderr).reveal().strip()
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', words)
    reason = found[1].replace('\\"', '"') if found else words
    if "no space left on device" in reason.lower() or "disk quota" in reason.lower():
        return StorageFull("No room to fetch the image", reason)
    if "file too large" in reason.lower():
        return ImageError("The image is larger than it may be, packed", reason)
    if _UNREACHABLE.search(reason):
        return SetupError(
            "The image's registry cannot be reached",
            reason,
            "Check the network and the proxy (HTTPS_PROXY). Images on this machine:"
            " oci:DIR:TAG or docker-archive:FILE.",
        )
    return ImageError("The image cannot be fetched", reason)
