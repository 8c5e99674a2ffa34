"""A Debian base as an OCI image, made into one that boots; beside skopeo, umoci and mke2fs alone.

The bare road unpacks the same layers and makes the same disk of them; no kernel, no contract.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from figure import Figure, significant

from swarm_tui.local.oci.build import build_foreign
from swarm_tui.local.oci.shelf import remove_image

_NAME = "bench"
_DISK_MIB = 1024


def images(cache: Path, folder: Path) -> Iterator[Figure]:
    """Building one for the first time and again, in seconds. `folder` is the caller's."""
    source = _make_source(folder)
    begun = time.perf_counter()
    entry = build_foreign(cache, source, _NAME, lambda step: None)
    first = time.perf_counter() - begun
    size = entry.size
    begun = time.perf_counter()
    build_foreign(cache, source, _NAME, lambda step: None)
    again = time.perf_counter() - begun
    remove_image(cache, _NAME, dict, lambda step: None)
    bare = _build_bare(source, folder)
    yield Figure(
        "image build from an OCI layout",
        first,
        "s",
        "a Debian base of one layer: fetched, checked, unpacked, our contract added, its disk made",
        detail={
            "its disk, MiB": significant(size / 2**20),
            "again, of the same digest, s": significant(again),
            "skopeo copy, umoci unpack and mke2fs -d, s": significant(bare),
        },
    )


def _make_source(folder: Path) -> str:
    layout, layer = folder / "layout", folder / "layer.tar"
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm")
    _run("mmdebstrap", "--quiet", "--variant=essential", release, str(layer))
    _run("umoci", "init", "--layout", str(layout))
    _run("umoci", "new", "--image", f"{layout}:1")
    _run("umoci", "raw", "add-layer", "--image", f"{layout}:1", str(layer))
    return f"oci:{layout}:1"


def _build_bare(source: str, folder: Path) -> float:
    copy, tree, disk = folder / "copy", folder / "tree", folder / "disk"
    begun = time.perf_counter()
    _run("skopeo", "--insecure-policy", "copy", "--quiet", source, f"oci:{copy}:1")
    _run("umoci", "unpack", "--rootless", "--image", f"{copy}:1", str(tree))
    _run("mke2fs", "-q", "-t", "ext4", "-d", str(tree / "rootfs"), str(disk), f"{_DISK_MIB}M")
    took_s = time.perf_counter() - begun
    shutil.rmtree(tree)
    return took_s


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
