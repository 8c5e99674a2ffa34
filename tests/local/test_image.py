"""The image build: what it takes from apt, what it makes, and how it fails."""

from __future__ import annotations

import lzma
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm_tui.errors import SetupError, StorageFull
from swarm_tui.local.accel import Mode, choose_accel
from swarm_tui.local.image import Image, build_image, write_initrd
from swarm_tui.local.kernel import load_order
from swarm_tui.local.packages import Package, closure, parse_depends, parse_offers
from swarm_tui.outpost import accel
from swarm_tui.outpost.programs import PROGRAMS

# Cut from the answers of apt on Debian 12 and 13.
DEPENDS = """\
linux-image-cloud-amd64
  Depends: linux-image-6.12.117+deb13-cloud-amd64
git
  Depends: libc6
 |Depends: libcurl3t64-gnutls
  Depends: <libcurl-imaginary>
    libcurl-provider
 |Depends: <awk>
    mawk
  Depends: zlib1g
  Depends: perl
  Depends: liberror-perl
busybox-static
perl
  PreDepends: perl-base
linux-image-6.12.117+deb13-cloud-amd64
  Depends: kmod
  Depends: linux-base
 |Depends: initramfs-tools
  Depends: <linux-initramfs-tool>
    dracut
libc6
  Depends: libgcc-s1
libgcc-s1
  Depends: gcc-14-base
  Depends: libc6
zlib1g
  Depends: libc6
"""


def test_the_closure_is_apts_without_what_only_an_installation_needs() -> None:
    edges = parse_depends(DEPENDS)
    assert edges["git"] == ["libc6", "libcurl3t64-gnutls", "zlib1g", "perl", "liberror-perl"]
    assert closure(edges, ["linux-image-cloud-amd64", "git", "busybox-static"]) == [
        "busybox-static",
        "git",
        "libc6",
        "libgcc-s1",
        "linux-image-6.12.117+deb13-cloud-amd64",
        "zlib1g",
    ]


def test_offers_are_read_with_their_digests() -> None:
    digest = "e7" * 32
    offers = (
        "'http://deb.debian.org/pool/z.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86684"
        f" SHA256:{digest}\n"
        f"'file:/mirror/bash.deb' bash_5.2.15-2+b13_amd64.deb 1490652 SHA256:{digest}\n"
    )
    assert parse_offers(offers) == [
        Package("bash", "bash_5.2.15-2+b13_amd64.deb", digest),
        Package("zlib1g", "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb", digest),
    ]


def test_drivers_load_after_those_they_need() -> None:
    modules = {
        "virtio_blk": b"\x7fELF\0depends=virtio-ring,virtio\0name=virtio_blk\0",
        "virtio": lzma.compress(b"\x7fELF\0depends=virtio_ring\0"),
        "virtio_ring": b"\x7fELF\0depends=\0",
        "unwanted": b"\x7fELF\0depends=\0",
    }
    wanted = ["virtio_blk", "built_in", "virtio"]
    assert load_order(wanted, modules) == ["virtio_ring", "virtio", "virtio_blk"]


# A cache of the test's own, which shares packages with the others


@pytest.fixture
def cache(tmp_path: Path, image: Image) -> Path:
    """A cache that knows its packages and has them, but holds no image."""
    shared = image.folder.parent.parent
    folder = tmp_path / "cache"
    (folder / "debs").mkdir(parents=True)
    for deb in (shared / "debs").glob("*.deb"):
        (folder / "debs" / deb.name).symlink_to(deb)
    shutil.copy(shared / "packages.json", folder)
    return folder


def silent(_: str) -> None:
    pass


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that configures apt, in all its programs, for this test."""
    path = tmp_path / "apt.conf"
    monkeypatch.setenv("APT_CONFIG", str(path))
    return path


def test_builds_at_the_same_time_make_one_image(cache: Path, image: Image) -> None:
    leftover = cache / "images/killed.partial/root"
    leftover.mkdir(parents=True)
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: build_image(cache, said.append), range(2))
    assert one == other
    assert (one.digest, one.base_commit) == (image.digest, image.base_commit)
    assert said.count("making the disk") == 1
    assert [path.name for path in (cache / "images").iterdir()] == [one.digest]
    for path in (one.kernel, one.kernel_elf, one.initrd, one.base):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o755
    assert one.kernel_elf.read_bytes()[:4] == b"\x7fELF"


def test_a_known_image_needs_no_program_at_all(
    image: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert build_image(image.folder.parent.parent, said.append) == image
    assert said == []


def test_an_image_outlives_the_lists_of_apt(image: Image, cache: Path, apt: Path) -> None:
    apt.write_text(f'Dir::State::lists "{cache}/none";\n')
    (cache / "images").symlink_to(image.folder.parent)
    assert build_image(cache, silent).digest == image.digest


def test_packages_that_apt_does_not_know_are_told(tmp_path: Path, apt: Path) -> None:
    apt.write_text(f'Dir::State::lists "{tmp_path}/none";\n')
    with pytest.raises(SetupError) as raised:
        build_image(tmp_path / "new", silent)
    assert raised.value.title == "apt does not know the packages of the guest image"
    assert "apt-get update" in raised.value.hint


def test_a_download_that_fails_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    next((cache / "debs").glob("dropbear-bin_*")).unlink()
    with pytest.raises(SetupError) as raised:
        build_image(cache, silent)
    assert raised.value.title == "The packages of the guest image could not be downloaded"
    assert "dropbear-bin" in raised.value.detail
    assert "network" in raised.value.hint


def test_a_package_that_was_altered_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (deb,) = (cache / "debs").glob("dropbear-bin_*")
    deb.unlink()
    stand_in = tmp_path / "apt-get"
    stand_in.write_text(f"#!/bin/sh\necho altered >'{deb.name}'\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SetupError, match="dropbear-bin is not the file that apt promised"):
        build_image(cache, silent)
    assert not deb.exists()


def test_missing_programs_are_named_with_their_packages(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for program in set(PROGRAMS) - {"zstd", "lz4"}:
        found = shutil.which(program)
        if found:
            (few / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(few))
    with pytest.raises(SetupError) as raised:
        build_image(cache, silent)
    assert "zstd" in raised.value.title
    assert raised.value.hint == "apt-get install --no-install-recommends lz4 zstd"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_leaves_nothing_behind(cache: Path, small_disk: Path) -> None:
    shutil.copytree(cache, small_disk / "cache", symlinks=True)
    with pytest.raises(StorageFull):
        build_image(small_disk / "cache", silent)
    assert list((small_disk / "cache/images").iterdir()) == []


def test_another_architecture_is_refused(
    tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(SetupError, match="x86-64"):
        build_image(tmp_path, silent)
    with pytest.raises(SetupError, match="x86-64"):
        choose_accel(image, tmp_path)


def test_keys_are_for_their_owner_alone(image: Image, tmp_path: Path) -> None:
    target = tmp_path / "initrd.img"
    write_initrd(image, target, "ssh-ed25519 AAAA somebody\n", b"private")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    content = target.read_bytes()
    assert content.startswith(image.initrd.read_bytes())
    assert b"ssh-ed25519 AAAA somebody\n" in content
    with pytest.raises(SetupError):
        write_initrd(image, tmp_path / "none/initrd.img", "", b"")


# Acceleration


class StandInQemu:
    """A script in QEMU's place that counts its runs; KVM's device is any file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.program = folder / accel.QEMU
        self.log = folder / "runs"
        self.device = folder / "kvm"
        self.device.touch()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setattr(accel, "_KVM", self.device)

    def does(self, script: str) -> None:
        self.program.write_text(f"#!/bin/sh\necho >>{self.log}\n{script}\n")
        self.program.chmod(0o755)

    @property
    def runs(self) -> int:
        return len(self.log.read_text()) if self.log.exists() else 0


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInQemu:
    folder = tmp_path / "bin"
    folder.mkdir()
    return StandInQemu(folder, monkeypatch)


def test_kvm_is_chosen_where_linux_boots_with_it(
    image: Image, tmp_path: Path, qemu: StandInQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which(accel.QEMU, path=os.environ["PATH"].partition(":")[2])
    emulate = "s/accel=kvm/accel=tcg/; s/^host$/max/"
    qemu.does(
        f'for word; do shift; set -- "$@" "$(echo "$word" | sed \'{emulate}\')"; done\n'
        f'exec {real} "$@"'
    )
    monkeypatch.setattr(accel, "PROBE_TIMEOUT_S", 60.0)
    assert choose_accel(image, tmp_path).mode is Mode.KVM
    assert choose_accel(image, tmp_path).mode is Mode.KVM
    assert qemu.runs == 1


def test_emulation_is_chosen_where_linux_hangs(
    image: Image, tmp_path: Path, qemu: StandInQemu, monkeypatch: pytest.MonkeyPatch
) -> None:
    qemu.does("echo SeaBIOS; exec sleep 60")
    monkeypatch.setattr(accel, "PROBE_TIMEOUT_S", 0.3)
    chosen = choose_accel(image, tmp_path)
    assert chosen.mode is Mode.TCG
    assert "did not boot" in chosen.reason
    assert choose_accel(image, tmp_path) == chosen
    assert qemu.runs == 1


def test_emulation_is_chosen_where_qemu_refuses(
    image: Image, tmp_path: Path, qemu: StandInQemu
) -> None:
    qemu.does("echo 'Could not access KVM kernel module' >&2; exit 1")
    chosen = choose_accel(image, tmp_path)
    assert chosen.mode is Mode.TCG
    assert "Could not access KVM kernel module" in chosen.reason


def test_without_the_device_there_is_no_probe(
    image: Image, tmp_path: Path, qemu: StandInQemu
) -> None:
    qemu.does("exit 1")
    qemu.device.unlink()
    chosen = choose_accel(image, tmp_path)
    assert chosen.mode is Mode.TCG
    assert "there is no" in chosen.reason
    with pytest.raises(SetupError, match="KVM"):
        choose_accel(image, tmp_path, "kvm")
    assert qemu.runs == 0


@pytest.mark.skipif(os.getuid() == 0, reason="root may write to every device")
def test_a_device_that_is_not_ours_tells_the_cure(
    image: Image, tmp_path: Path, qemu: StandInQemu
) -> None:
    qemu.does("exit 1")
    qemu.device.chmod(0)
    chosen = choose_accel(image, tmp_path)
    assert chosen.mode is Mode.TCG
    assert "adduser" in chosen.reason
    assert qemu.runs == 0


def test_a_choice_can_be_forced(image: Image, tmp_path: Path, qemu: StandInQemu) -> None:
    qemu.does("exit 1")
    assert choose_accel(image, tmp_path, "tcg").mode is Mode.TCG
    assert choose_accel(image, tmp_path, "kvm").mode is Mode.KVM
    assert qemu.runs == 0
