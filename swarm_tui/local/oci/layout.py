"""What an OCI layout of ours says of its one image: layers, and how it would be run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import ImageError
from swarm_tui.local.oci.limits import Limits
from swarm_tui.local.oci.source import ARCHITECTURE, DIGEST, MANIFEST_BYTES, parse_object
from swarm_tui.local.oci.unpack import Layer

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_LAYER: Final = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
)
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHELLS: Final = ("ash", "bash", "dash", "fish", "ksh", "sh", "zsh")
_UNHEEDED: Final = ("ExposedPorts", "Healthcheck", "OnBuild", "StopSignal", "Volumes")
_WORDS: Final = 1000
_TEXT: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class Config:
    """How the image would be run as a container. All of it is the image's own words."""

    entrypoint: Sequence[str]
    command: Sequence[str]
    environment: Sequence[tuple[str, str]]
    user: str
    folder: str
    labels: Mapping[str, str]
    created: str
    ignored: Sequence[str]
    """Names in its environment that are none."""
    unheeded: Sequence[str] = ()
    """What it says besides, of which nothing comes here."""

    @property
    def program(self) -> Sequence[str]:
        """What a container of it would run; empty where that is only a shell for a person."""
        words = [*self.entrypoint, *self.command]
        return [] if _is_shell(words) else words


@dataclass(frozen=True, slots=True)
class Recipe:
    layers: Sequence[Layer]
    sizes: Sequence[int]
    """Of the layers, packed."""
    config: Config


def read_layout(layout: Path, limits: Limits) -> Recipe:
    """Raises ImageError when it is not a whole image for this architecture."""
    index = parse_object((layout / "index.json").read_bytes(), "the index")
    listed = _list(index, "manifests", "the index")
    if len(listed) != 1:
        raise ImageError("This is no image: its index names not one manifest")
    manifest = parse_object(_blob(layout, listed[0]), "the manifest")
    config = parse_object(_blob(layout, manifest.get("config")), "the configuration")
    kind = f"{config.get('os')}/{config.get('architecture')}"
    if kind != f"linux/{ARCHITECTURE}":
        raise ImageError(
            f"The image is not made for linux/{ARCHITECTURE}", f"It is made for {kind}."
        )
    described = _list(manifest, "layers", "the manifest")
    if len(described) > limits.layers:
        raise ImageError(f"The image has more than {limits.layers} layers", str(len(described)))
    rootfs = config.get("rootfs")
    ids = _list(rootfs if isinstance(rootfs, dict) else {}, "diff_ids", "the configuration")
    if len(ids) != len(described):
        raise ImageError(
            "The image's configuration does not fit its layers",
            f"{len(described)} layers, {len(ids)} digests of them",
        )
    layers, sizes = [], []
    for blob, diff_id in zip(described, ids, strict=True):
        path = _place(layout, blob)
        layers.append(Layer(str(path), path.name, _hex(diff_id), _compression(blob, path)))
        sizes.append(path.stat().st_size)
    return Recipe(layers, sizes, _read_config(config))


def _read_config(raw: Mapping[str, Any]) -> Config:
    given = raw.get("config")
    config: Mapping[str, Any] = given if isinstance(given, dict) else {}
    environment, ignored = [], []
    for line in _texts(config, "Env"):
        name, _, value = line.partition("=")
        if _VARIABLE.fullmatch(name):
            environment.append((name, value))
        else:
            ignored.append(name)
    labels = config.get("Labels")
    pairs = labels.items() if isinstance(labels, dict) else ()
    return Config(
        _texts(config, "Entrypoint"),
        _texts(config, "Cmd"),
        environment,
        _text(config, "User"),
        _text(config, "WorkingDir"),
        {str(key): str(value) for key, value in list(pairs)[:_WORDS]},
        _text(raw, "created"),
        ignored,
        [name for name in _UNHEEDED if config.get(name)],
    )


def _is_shell(words: Sequence[str]) -> bool:
    if not words or words[0].rpartition("/")[2] not in _SHELLS:
        return False
    if words[1:2] == ["-c"]:
        return len(words) == 3 and _is_shell(words[2].split())
    return all(word in ("-i", "-l", "--login") for word in words[1:])


def _texts(config: Mapping[str, Any], name: str) -> Sequence[str]:
    given = config.get(name)
    words = [] if given is None else given
    if (
        not isinstance(words, list)
        or len(words) > _WORDS
        or not all(isinstance(word, str) and "\0" not in word for word in words)
        or sum(map(len, words)) > _TEXT
    ):
        raise ImageError(f"The image's configuration makes no sense: {name}")
    try:
        "".join(words).encode()
    except UnicodeEncodeError as error:
        raise ImageError(f"The image's configuration makes no sense: {name}") from error
    return words


def _text(config: Mapping[str, Any], name: str) -> str:
    given = config.get(name)
    return given[:_WORDS] if isinstance(given, str) else ""


def _list(parsed: Mapping[str, Any], name: str, what: str) -> Sequence[Any]:
    found = parsed.get(name)
    if not isinstance(found, list):
        raise ImageError(f"This is no image: {what} has no {name}")
    return found


def _compression(blob: Mapping[str, Any], path: Path) -> str:
    """By what the layer begins with: skopeo calls the plain layers of docker-archive gzip."""
    kind = str(blob.get("mediaType"))
    if not _LAYER.fullmatch(kind):
        raise ImageError("A layer is of a kind that is not known", kind)
    with open(path, "rb") as file:
        begins = file.read(4)
    return next((name for magic, name in _MAGIC.items() if begins.startswith(magic)), "")


def _place(layout: Path, blob: object) -> Path:
    """Where a blob lies. Its name is checked: it becomes a path."""
    path = layout / "blobs/sha256" / _hex(blob.get("digest") if isinstance(blob, dict) else None)
    if path.is_symlink() or not path.is_file():
        raise ImageError("The image is not whole", f"It lacks {path.name}.")
    return path


def _hex(digest: object) -> str:
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ImageError("This is no image: a digest of it is none", repr(digest)[:100])
    return digest.removeprefix("sha256:")


def _blob(layout: Path, blob: object) -> bytes:
    path = _place(layout, blob)
    with open(path, "rb") as file:
        content = file.read(MANIFEST_BYTES + 1)
    if hashlib.sha256(content).hexdigest() != path.name and len(content) <= MANIFEST_BYTES:
        raise ImageError("A part of the image is not what its digest says", path.name)
    return content
