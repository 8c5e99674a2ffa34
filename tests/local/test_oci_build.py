"""Foreign images built, kept and removed: from real archives, by the real programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm_tui.errors import ImageError, NotFound, Refused
from swarm_tui.local.image import Image
from swarm_tui.local.oci.build import build_foreign
from swarm_tui.local.oci.limits import USUAL, Limits
from swarm_tui.local.oci.shelf import (
    find_current,
    find_users,
    list_images,
    list_swarms,
    remove_image,
)

from .oci import make_layer, make_layout, take_busybox


@pytest.fixture(scope="module")
def cache(image: Image) -> Iterator[Path]:
    """Of these tests' own, with our own image in it: links, for nobody changes such files."""
    ours = image.folder.parent.parent
    cache = Path(tempfile.mkdtemp(prefix="swarm-tui-oci-", dir=ours.parent))
    for name in ("debs", "images", "kernels"):
        shutil.copytree(ours / name, cache / name, copy_function=os.link, symlinks=True)
    shutil.copy2(ours / "packages.json", cache)
    yield cache
    shutil.rmtree(cache)


@pytest.fixture(scope="module")
def busybox(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return take_busybox(cache, tmp_path_factory.mktemp("busybox"))


@pytest.fixture
def userland(busybox: bytes) -> bytes:
    return make_layer({"bin/busybox": busybox, "bin/sh": "busybox"})


@pytest.fixture(autouse=True)
def nothing_is_left(cache: Path) -> Iterator[None]:
    """Neither of a build that went well nor of one that did not."""
    yield
    assert list((cache / "oci/work").glob("*")) == []


def build(cache: Path, source: str, name: str, limits: Limits = USUAL) -> str:
    return build_foreign(cache, source, name, lambda _: None, limits).image.digest


def test_a_docker_archive_is_built(cache: Path, userland: bytes, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [userland], {"Env": ["FROM=an archive"]})
    archive = tmp_path / "saved.tar"
    copy = ["skopeo", "--insecure-policy", "copy", "-q", layout, f"docker-archive:{archive}:a/b:1"]
    subprocess.run(copy, check=True)
    digest = build(cache, f"docker-archive:{archive}", "archived")
    (entry,) = (entry for entry in list_images(cache) if "archived" in entry.names)
    assert entry.image.digest == digest
    assert entry.facts["config"]["environment"] == [["FROM", "an archive"]]
    for file in ("base", "initrd", "kernel", "kernel_elf", "project"):
        assert getattr(find_current(cache, "archived"), file).stat().st_size > 0


def test_two_builds_at_once_make_one_image(cache: Path, userland: bytes, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [userland, make_layer({"two": b"2"})])
    with ThreadPoolExecutor(2) as pool:
        digests = list(pool.map(lambda name: build(cache, layout, name), ("first", "second")))
    assert digests[0] == digests[1]
    (entry,) = (entry for entry in list_images(cache) if entry.image.digest == digests[0])
    assert set(entry.names) == {"first", "second"}


def test_a_killed_build_leaves_nothing_to_the_next(
    cache: Path, userland: bytes, tmp_path: Path
) -> None:
    layout = make_layout(tmp_path / "layout", [userland, make_layer({"k": b"k"})])
    script = (
        "import sys; from pathlib import Path\n"
        "from swarm_tui.local.oci.build import build_foreign\n"
        "build_foreign(Path(sys.argv[1]), sys.argv[2], 'killed', lambda s: print(s, flush=True))"
    )
    command = [sys.executable, "-c", script, str(cache), layout]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any("unpacking" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    assert list((cache / "oci/work").glob("*")) != []
    with pytest.raises(NotFound):
        find_current(cache, "killed")
    build(cache, layout, "killed")
    assert find_current(cache, "killed").base.stat().st_size > 0


@pytest.mark.parametrize("is_packed_well", [True, False])
def test_what_would_fill_the_disk_is_refused(
    cache: Path, tmp_path: Path, is_packed_well: bool
) -> None:
    layout = make_layout(
        tmp_path / "layout",
        [make_layer({"big": bytes(8 << 20) if is_packed_well else os.urandom(2 << 20)})],
    )
    limits = Limits(unpacked_bytes=4 << 20, compressed_bytes=1 << 20)
    with pytest.raises(ImageError, match="MiB of files" if is_packed_well else "larger than"):
        build(cache, layout, "bomb", limits)
    with pytest.raises(NotFound):
        find_current(cache, "bomb")


def test_holes_count_as_full(cache: Path, tmp_path: Path) -> None:
    with open(tmp_path / "hole", "wb") as file:
        file.truncate(1 << 40)
    command = ["tar", "-C", str(tmp_path), "--sparse", "-cf", "-", "hole"]
    layer = subprocess.run(command, check=True, capture_output=True).stdout
    layout = make_layout(tmp_path / "layout", [layer])
    with pytest.raises(ImageError, match="MiB of files"):
        build(cache, layout, "hole")


@pytest.mark.parametrize(
    ("part", "content"),
    [("config", b"{"), ("config", b"[]"), ("config", b"[" * 100_000), ("manifest", b"nonsense")],
)
def test_descriptions_that_cannot_be_read(
    cache: Path, tmp_path: Path, part: str, content: bytes
) -> None:
    layout = make_layout(tmp_path / "layout", [], raw={part: content})
    with pytest.raises(ImageError):
        build(cache, layout, "broken")


@pytest.mark.parametrize(
    "config", [{"Env": "PATH=/bin"}, {"Entrypoint": [1]}, {"Cmd": ["a\0b"]}, {"Env": ["a"] * 2000}]
)
def test_configurations_that_make_no_sense(
    cache: Path, userland: bytes, tmp_path: Path, config: dict[str, object]
) -> None:
    layout = make_layout(tmp_path / "layout", [userland], config)
    with pytest.raises(ImageError, match=r"makes no sense|cannot be fetched"):
        build(cache, layout, "senseless")


def test_an_image_for_another_processor(cache: Path, userland: bytes, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [userland], architecture="arm64")
    with pytest.raises(ImageError, match="not made for linux/amd64"):
        build(cache, layout, "arm")


def test_an_image_in_use_stays(cache: Path, userland: bytes, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", [userland, make_layer({"used": b"u"})])
    digest = build(cache, layout, "used")
    swarm = tmp_path / "data/local"
    agent, template = swarm / "agents/a1", swarm / "templates/t1"
    stem, ready = swarm / "pools/web/k1/stem", swarm / "pools/web/k1/r1"
    image = find_current(cache, "used")
    base = image.base
    for folder in (agent, template, stem, ready):
        folder.mkdir(parents=True)
        (folder / "definition.xml").write_text(f"<kernel>{image.kernel}</kernel>")
        (folder / "template.json").write_text("{}")
    (agent / "image").write_text(f"{digest}\n")
    told: list[str] = []

    def remove() -> None:
        remove_image(
            cache,
            "used",
            lambda: find_users(cache, tmp_path / "data", tmp_path / "elsewhere"),
            told.append,
            list_swarms(tmp_path / "data"),
        )

    with pytest.raises(Refused) as refused:
        remove()
    assert "agent a1" in str(refused.value.detail)
    shutil.rmtree(agent)
    assert base.exists()
    saved = tmp_path / "elsewhere/a1/s1"
    saved.mkdir(parents=True)
    create = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base)]
    subprocess.run([*create, str(saved / "disk-0")], check=True)
    with pytest.raises(Refused) as refused:
        remove()
    assert "snapshot s1" in str(refused.value.detail)
    assert template.exists()
    assert not told
    shutil.rmtree(saved)
    remove()  # what no agent uses goes with it
    assert not base.exists()
    assert [path for path in swarm.glob("*/**/*") if path.name != "lock"] == [
        swarm / "pools/web"
    ], "templates and pools of it are left"
    assert sorted(line.partition(" went")[0] for line in told) == ["pool web", "template t1"]
    with pytest.raises(NotFound):
        find_current(cache, "used")
