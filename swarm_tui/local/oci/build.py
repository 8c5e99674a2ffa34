"""A foreign image made bootable: fetched, unpacked, furnished, and put on a disk.

It is named by what it is made of: the source's manifest, our own image (kernel, drivers, initramfs)
and the code here. Nothing of the image is executed on this machine, and nothing of it lies
anywhere but below a folder of ours, as plain files without rights, until it is on the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from swarm_tui.errors import ImageError, SetupError, StorageFull
from swarm_tui.local.disk import make_foreign_disk
from swarm_tui.local.image import (
    GUEST,
    Image,
    build_image,
    guest_key,
    load_image,
    unpack_own,
)
from swarm_tui.local.oci.kit import make_kit
from swarm_tui.local.oci.layout import Recipe, read_layout
from swarm_tui.local.oci.limits import USUAL, Limits
from swarm_tui.local.oci.shelf import Entry, check_name, find_entry, give_name, locked_shelf
from swarm_tui.local.oci.source import Manifest, fetch, look, parse_source
from swarm_tui.local.oci.unpack import Job
from swarm_tui.outpost.programs import Say, find, make_folder, require_programs, run, telling

_SOURCES: Final = sorted(Path(__file__).parent.glob("*.py"))
_ROOM_MIB: Final = 1024
"""Free on the disk, beside what the image brings and a quarter of that."""
_PARTS: Final = ("vmlinuz", "vmlinux", "initrd.img", "project.bundle")


def build_foreign(
    cache: Path, text: str, name: str, on_progress: Say, limits: Limits = USUAL
) -> Entry:
    """The image of a source, built if the cache has it not yet; it bears `name` from now on.

    `name` empty: one made of the source. Blocks: for the source's manifest at least, and for a
    build at the same time. Raises UsageError, ImageError, SetupError, DeadlineExceeded,
    StorageFull; nothing is left behind then, and the name stays with the image it had.
    """
    source = parse_source(text)
    name = check_name(name or source.default_name)
    _require_programs()
    own = build_image(cache, on_progress)
    with telling("build the image"), locked_shelf(cache, on_progress):
        works = cache / "oci/work"
        shutil.rmtree(works, ignore_errors=True)  # of builds that were killed
        make_folder(works, 0o700)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=works, ignore_cleanup_errors=True) as folder:
            work = Path(folder)
            on_progress("asking for its manifest")
            manifest = look(source, work, limits)
            digest = _digest(manifest, own)
            if load_image(cache / "oci/images" / digest) is None:
                _Build(cache, work, own, limits, on_progress).make(manifest, digest, began)
        give_name(cache, name, digest)
    return find_entry(cache, name)


def _require_programs() -> None:
    require_programs()
    # Each is a Debian package of the same name; root needs fakeroot, too, for foreign owners.
    missing = [name for name in ("fakeroot", "patchelf", "skopeo") if not find(name)]
    if missing:
        raise SetupError(
            "Not installed, and needed for foreign images: " + ", ".join(missing),
            hint="apt-get install --no-install-recommends " + " ".join(missing),
        )


def _digest(manifest: Manifest, own: Image) -> str:
    sha256 = hashlib.sha256(f"{manifest.digest} {own.digest}".encode())
    for path in _SOURCES:
        sha256.update(path.read_bytes())
    return sha256.hexdigest()[:32]


class _Build:
    def __init__(self, cache: Path, work: Path, own: Image, limits: Limits, say: Say) -> None:
        self._cache = cache
        self._work = work
        self._own = own
        self._limits = limits
        self._say = say

    def make(self, manifest: Manifest, digest: str, began: float) -> None:
        """Raises as `build_foreign`, and Failed, OSError."""
        work, layout, done = self._work, self._work / "layout", self._work / "image"
        self._say("fetching it")
        fetch(manifest, layout, work, self._limits)
        recipe = read_layout(layout, self._limits)
        outcome = self._unpack(recipe, self._kit())
        shutil.rmtree(layout)
        self._say("making the disk")
        make_folder(done)
        size_mib = (int(outcome["size"] * 1.25) + outcome["inodes"] * 512 >> 20) + _ROOM_MIB
        inodes = max(65536, outcome["inodes"] * 2)
        make_foreign_disk(
            work / "root",
            done / "base.raw",
            size_mib,
            inodes,
            work / "owners",
            work / "capabilities" if outcome["capabilities"] else None,
        )
        for name in _PARTS:
            os.link((self._own.folder / name).resolve(), done / name)
        facts = {
            "source": manifest.source.given,
            "manifest": manifest.digest,
            "made": time.time(),
            "seconds": round(time.monotonic() - began, 1),
            "guest": guest_key(),
            "own": self._own.digest,
            "disk_mib": size_mib,
            "config": asdict(recipe.config),
            "layers": [
                {"digest": f"sha256:{layer.digest}", "bytes": size}
                for layer, size in zip(recipe.layers, recipe.sizes, strict=True)
            ],
            "outcome": outcome,
        }
        (done / "oci.json").write_text(json.dumps(facts))
        (done / "image.json").write_text(json.dumps({"base_commit": self._own.base_commit}))
        for path in done.iterdir():
            path.chmod(0o644)
        make_folder(self._cache / "oci/images")
        done.rename(self._cache / "oci/images" / digest)

    def _kit(self) -> Path:
        """Our tools, made once for each of our own images."""
        sources = b"".join(path.read_bytes() for path in _SOURCES if path.stem == "kit")
        key = hashlib.sha256(self._own.digest.encode() + sources).hexdigest()[:32]
        done = self._cache / "oci/kits" / key
        if not done.exists():
            self._say("making the guest's tools")
            work = self._work / "kit"
            root, drivers = unpack_own(self._cache, self._work / "own", self._say)
            make_kit(root, drivers, work)
            workspace = work / "workspace"
            run(["git", "clone", "-q", "--template=", str(self._own.project), str(workspace)])
            run(["git", "-C", str(workspace), "remote", "remove", "origin"])
            shutil.rmtree(done.parent, ignore_errors=True)  # those of older images of our own
            make_folder(done.parent)
            work.rename(done)
        return done

    def _unpack(self, recipe: Recipe, kit: Path) -> Mapping[str, Any]:
        job = Job(
            work=str(self._work),
            layers=recipe.layers,
            limits=self._limits,
            kit=str(kit),
            guest=str(GUEST),
            environment=recipe.config.environment,
            program=recipe.config.program,
            user=recipe.config.user,
            folder=recipe.config.folder,
        )
        command = [sys.executable, "-X", "utf8", "-m", "swarm_tui.local.oci.unpack"]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._say(f"unpacking {len(recipe.layers)} layers")
            told, complaint = process.communicate(
                json.dumps(asdict(job)), timeout=self._limits.unpack_s
            )
        except subprocess.TimeoutExpired as error:
            limit = f"{self._limits.unpack_s:.0f} s"
            raise ImageError(f"The image took longer than {limit} to unpack") from error
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        answer = json.loads(told.splitlines()[-1]) if told else {}
        if "hostile" in answer:
            raise ImageError("The image is refused: " + str(answer["hostile"]))
        if "full" in answer:
            raise StorageFull("No room to unpack the image", str(answer["full"]))
        if "outcome" not in answer:
            raise ImageError("The image could not be unpacked", complaint[-2000:])
        found: Mapping[str, Any] = answer["outcome"]
        return found
