"""The foreign images that were built, by name and by digest.

<cache>/oci/images/DIGEST/   an image (see `local.image`), and what it was made of: oci.json
<cache>/oci/names/NAME       the digest of the image that bears the name
<cache>/oci/kits/KEY/        our tools for their guests
<cache>/oci/work/            what is being made; swept before the next build
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import NotFound, Refused, SetupError, UsageError
from swarm_tui.local.idle import hidden_idle
from swarm_tui.local.image import Image, guest_key, load_image
from swarm_tui.outpost.programs import Say, locked, make_folder, replace, telling
from swarm_tui.text import Safe, sanitize

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_BEGINNING: Final = re.compile("[0-9a-f]{8,32}")
_QCOW2: Final = struct.Struct(">4sIQI")


@dataclass(frozen=True, slots=True)
class Entry:
    """A built image."""

    image: Image
    names: Sequence[str]
    facts: Mapping[str, Any]
    """What it was made of, as JSON has it; text in it is the image's own words."""

    @property
    def title(self) -> Safe:
        return sanitize(", ".join(self.names) or self.image.digest[:12])

    @property
    def size(self) -> int:
        """Bytes that it takes here; those that it shares with others count."""
        return sum(path.lstat().st_blocks * 512 for path in self.image.folder.iterdir())

    @property
    def source(self) -> Safe:
        return sanitize(str(self.facts.get("source", "")), max_cells=200)

    @property
    def manifest(self) -> str:
        return str(sanitize(str(self.facts.get("manifest", "")), max_cells=80))

    @property
    def made(self) -> float:
        made = self.facts.get("made")
        return float(made) if isinstance(made, int | float) else 0.0

    @property
    def is_current(self) -> bool:
        """Whether the guest's side in it is the one that this program speaks to."""
        return self.facts.get("guest") == guest_key()


def check_name(name: str) -> str:
    """Raises UsageError for what cannot be one. No name can be taken for a digest."""
    if not NAME.fullmatch(name) or _BEGINNING.fullmatch(name):
        raise UsageError(
            "Not a name for an image",
            repr(name),
            "Up to 63 small letters, digits, dots, hyphens and underscores, and no digest.",
        )
    return name


def list_images(cache: Path) -> Sequence[Entry]:
    """All of them, by name; those without one at the end. Reads files only."""
    names = _names(cache)
    with telling("read the images"):
        entries = [
            _entry(folder, [name for name, digest in names.items() if digest == folder.name])
            for folder in sorted(_images(cache).glob("*/image.json"))
            for folder in (folder.parent,)
        ]
    return sorted(entries, key=lambda entry: (not entry.names, entry.names, -entry.made))


def find_entry(cache: Path, name: str) -> Entry:
    """The image of a name, a digest or the beginning of one (8 or more digits). Reads files only.

    Raises NotFound.
    """
    entries = list_images(cache)
    for entry in entries:
        if name in entry.names:
            return entry
    if _BEGINNING.fullmatch(name):
        found = [entry for entry in entries if entry.image.digest.startswith(name)]
        if len(found) == 1:
            return found[0]
    known = ", ".join(name for entry in entries for name in entry.names)
    raise NotFound(
        f"No image {name}",
        f"There are: {known}" if known else "No foreign image was built yet.",
        "swarm-tui image build SOURCE --name NAME makes one.",
    )


def find_current(cache: Path, name: str) -> Image:
    """The image of a name, for new agents. Raises NotFound, SetupError (it must be built again)."""
    entry = find_entry(cache, name)
    if not entry.is_current:
        raise SetupError(
            f"The image {name} was built by another version of swarm-tui",
            "Its guest's side is not the one that this version speaks to.",
            f"swarm-tui image build {entry.source} --name {entry.names[0]}"
            if entry.names
            else "swarm-tui image build makes it anew.",
        )
    return entry.image


def give_name(cache: Path, name: str, digest: str) -> None:
    make_folder(cache / "oci/names")
    replace(cache / "oci/names" / name, f"{digest}\n".encode())


def remove_image(
    cache: Path,
    name: str,
    find: Callable[[], Mapping[str, Sequence[str]]],
    on_progress: Say,
    swarms: Sequence[Path] = (),
) -> Entry:
    """Remove an image and all its names, and what local `swarms` have made of it in advance.

    `find`: digest → what uses that image, in words. Raises NotFound, and Refused when anything
    does.
    """
    with telling("remove the image"), locked_shelf(cache, on_progress):
        entry = find_entry(cache, name)
        _check_unused(entry, find())
        doomed = cache / "oci/work" / entry.image.digest
        with hidden_idle(swarms, entry.image.folder, on_progress) as remove_idle:
            _check_unused(entry, find())  # by one that was just made of it
            for known in entry.names:
                (cache / "oci/names" / known).unlink(missing_ok=True)
            # Out of sight at once: whoever looks meanwhile finds all of it or nothing.
            make_folder(doomed.parent)
            entry.image.folder.rename(doomed)
            remove_idle()
        shutil.rmtree(doomed)
        return entry


def _check_unused(entry: Entry, users: Mapping[str, Sequence[str]]) -> None:
    if using := users.get(entry.image.digest):
        raise Refused(
            f"The image {entry.title} is in use",
            "By " + ", ".join(using),
            "End what uses it first.",
        )


def list_swarms(data: Path) -> Sequence[Path]:
    """The folders of local swarms."""
    return sorted(data.glob("*/"))


def find_users(cache: Path, data: Path, snapshots: Path) -> Mapping[str, Sequence[str]]:
    """Digest → what runs on it: of the local swarms below `data`, and what they saved.

    `snapshots` may lie anywhere; the place that is usual for it counts all the same, because what
    was saved before another was chosen is there still.
    """
    users: dict[str, list[str]] = {}
    for folder in sorted({folder.resolve() for folder in (*data.glob("*/"), snapshots)}):
        for home in sorted((folder / "agents").glob("*/")):
            for digest in set(_used(home, _images(cache))):
                users.setdefault(digest, []).append(f"agent {home.name}")
        for disk in sorted(folder.glob("*/*/disk-*")):
            for digest in _based(disk, _images(cache)):
                users.setdefault(digest, []).append(f"snapshot {disk.parent.name}")
    return users


def _used(home: Path, images: Path) -> Iterator[str]:
    with suppress(OSError):
        yield (home / "image").read_text("ascii", "replace").strip()
    for disk in home.glob("*.qcow2"):
        yield from _based(disk, images)


def _based(disk: Path, images: Path) -> Iterator[str]:
    base = _backing(disk)
    if base is not None and base.is_relative_to(images):
        yield base.relative_to(images).parts[0]


def _backing(disk: Path) -> Path | None:
    """Of a qcow2 (docs/interop/qcow2.txt); None where it has none, or is none."""
    try:
        with open(disk, "rb") as file:
            header = file.read(_QCOW2.size)
            if len(header) < _QCOW2.size:
                return None
            magic, _, offset, length = _QCOW2.unpack(header)
            if magic != b"QFI\xfb" or not offset or length > 1023:
                return None
            file.seek(offset)
            return Path(file.read(length).decode("utf-8", "replace"))
    except OSError:
        return None


def locked_shelf(cache: Path, say: Say) -> Any:
    """Hold it against other builds and removals."""
    make_folder(cache / "oci")
    return locked(cache / "oci/lock", say)


def _images(cache: Path) -> Path:
    return cache / "oci/images"


def _names(cache: Path) -> Mapping[str, str]:
    found = {}
    for path in sorted((cache / "oci/names").glob("[a-z0-9]*")):
        try:
            found[path.name] = path.read_text("ascii", "replace").strip()
        except FileNotFoundError:  # it was removed meanwhile
            continue
    return found


def _entry(folder: Path, names: Sequence[str]) -> Entry:
    image = load_image(folder)
    assert image is not None  # its last file was found
    return Entry(image, names, json.loads((folder / "oci.json").read_bytes()))
