"""The guest image: a kernel, an initramfs and a root disk, made of Debian packages without root.

    <cache>/debs/             packages as downloaded, the present set only
    <cache>/packages.json     what apt resolved, and the state of apt that it was resolved in
    <cache>/kernels/<key>/    kernel and drivers unpacked from one kernel package
    <cache>/images/<digest>/  a finished image; never changed, holds no secrets, may be shared

An image is named by its content: the packages' digests, the files in `guest/` and the code that
builds it. Packages are unpacked, never installed: no maintainer script runs, nothing needs chroot
or mount, and ownership is set under fakeroot.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from swarm_tui.local.disk import make_disk
from swarm_tui.local.kernel import pack, pack_initramfs, unpack_kernel
from swarm_tui.local.packages import Package, download, resolve, unpack
from swarm_tui.outpost.accel import require_x86_64
from swarm_tui.outpost.programs import (
    Say,
    locked,
    make_folder,
    replace,
    require_programs,
    run,
    telling,
)

COMMAND_LINE: Final = (
    "console=ttyS0 quiet loglevel=3 nokaslr mitigations=off cryptomgr.notests tsc=reliable"
    " no_timer_check random.trust_cpu=on audit=0 apparmor=0 i8042.noaux i8042.nokbd"
    " 8250.nr_uarts=1 rcupdate.rcu_expedited=1"
)
"""The kernel's command line; what `guest.render_arguments` gives may be added."""

GUEST: Final = Path(__file__).with_name("guest")
"""What is put into a guest."""
_PACKAGE: Final = GUEST.parents[1]
_SOURCES: Final = (
    *(_PACKAGE / f"local/{name}.py" for name in ("image", "disk", "kernel", "packages")),
    _PACKAGE / "outpost/programs.py",
)
_DISK_MIB: Final = 1024
_AGENT_UID: Final = 1000


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image; all its files are readable by any user and never change."""

    folder: Path
    digest: str
    base_commit: str
    """Commit at which every new guest's /workspace stands."""

    @property
    def project(self) -> Path:
        """The agents' project as a git bundle, HEAD at the base commit."""
        return self.folder / "project.bundle"

    @property
    def kernel(self) -> Path:
        """bzImage, for KVM."""
        return self.folder / "vmlinuz"

    @property
    def kernel_elf(self) -> Path:
        """The same kernel as an ELF file that boots by PVH: a second quicker under emulation."""
        return self.folder / "vmlinux"

    @property
    def initrd(self) -> Path:
        """Initramfs without keys, good for the boot probe; guests need one by `write_initrd`."""
        return self.folder / "initrd.img"

    @property
    def base(self) -> Path:
        """Root disk (raw, sparse, partitioned), to be copied or used as the backing file."""
        return self.folder / "base.raw"


def build_image(cache: Path, on_progress: Say) -> Image:
    """The image for the packages that apt would install now; built if `cache` has it not yet.

    Blocks: some milliseconds when it is there, else about two seconds, plus the download.
    Builds at the same time wait for each other. Raises SetupError (a program, a package or the
    network is missing) and StorageFull.
    """
    require_x86_64()
    with telling("build the guest image"):
        for name in ("debs", "kernels", "images"):
            make_folder(cache / name)

        def find(packages: Sequence[Package]) -> Image | None:
            return load_image(cache / "images" / _digest(packages))

        packages = resolve(
            cache / "packages.json", lambda known: find(known) is not None, on_progress
        )
        if image := find(packages):
            return image
        require_programs()
        with locked(cache / "lock", on_progress):
            return find(packages) or _build(cache, packages, on_progress)


def write_initrd(image: Image, target: Path, authorized_key: str, host_key: bytes) -> None:
    """Write an initramfs that gives a guest its first keys; only its owner can read it.

    `authorized_key` is the OpenSSH public key line that may log in as root and as agent,
    `host_key` the private host key in dropbear's format (`guest.dropbear_key`). A guest takes
    both at its first boot only. Raises StorageFull, SetupError.
    """
    with telling("write the guests' initramfs"):
        keys = pack_keys(authorized_key, host_key)
        replace(target, image.initrd.read_bytes() + keys, 0o600)


def pack_keys(authorized_key: str, host_key: bytes) -> bytes:
    """What `write_initrd` puts behind an image's own initramfs."""
    return pack(
        {
            "keys": (0o040700, b""),
            "keys/authorized_keys": (0o100600, authorized_key.strip().encode() + b"\n"),
            "keys/host_key": (0o100600, host_key),
        }
    )


def find_image(cache: Path, name: str) -> Image:
    """A foreign image that was built, by its name or digest; some milliseconds.

    Raises NotFound, and SetupError when it must be built again.
    """
    from swarm_tui.local.oci.shelf import find_current

    return find_current(cache, name)


def guest_key() -> str:
    """Changes with the guest's side of the contract."""
    sha256 = hashlib.sha256()
    for path in _files(GUEST):
        sha256.update(f"{path.relative_to(GUEST)}\n".encode() + path.read_bytes())
    return sha256.hexdigest()[:16]


def unpack_own(cache: Path, root: Path, on_progress: Say) -> tuple[Path, Path]:
    """Our own packages as a tree at `root`, and the folder of the drivers to load after a boot.

    For an image that `build_image` has built. Raises SetupError, StorageFull, Failed, OSError.
    """
    require_programs()
    packages = resolve(cache / "packages.json", lambda _: True, on_progress)
    with locked(cache / "lock", on_progress):
        debs = download(cache / "debs", packages, on_progress)
        kernel_debs = [debs[package] for package in packages if package.is_kernel]
        parts = unpack_kernel(cache / "kernels", kernel_debs)
        unpack(root, [debs[package] for package in packages if not package.is_kernel])
    return root, parts / "later"


def _digest(packages: Sequence[Package]) -> str:
    sha256 = hashlib.sha256()
    for package in packages:
        sha256.update(f"{package.file} {package.sha256}\n".encode())
    for path in (*_SOURCES, *_files(GUEST)):
        content = path.read_bytes()
        sha256.update(f"{path.relative_to(_PACKAGE)} {len(content)}\n".encode() + content)
    return sha256.hexdigest()[:32]


def _files(folder: Path) -> Sequence[Path]:
    return sorted(
        Path(parent) / name
        for parent, _, names in os.walk(folder)
        if not parent.endswith("__pycache__")
        for name in names
    )


def load_image(folder: Path) -> Image | None:
    """The finished image of a folder; None: there is none."""
    try:
        facts = json.loads((folder / "image.json").read_bytes())
    except FileNotFoundError:
        return None
    return Image(folder, folder.name, facts["base_commit"])


def _build(cache: Path, packages: Sequence[Package], say: Say) -> Image:
    images = cache / "images"
    for leftover in images.glob("*.partial"):  # of a build that was killed
        shutil.rmtree(leftover)
    debs = download(cache / "debs", packages, say)
    done = images / _digest(packages)
    work = images / f"{done.name}.partial"
    root = work / "root"
    make_folder(work)
    try:
        say("unpacking packages")
        with ThreadPoolExecutor(1) as pool:
            kernel_debs = [debs[package] for package in packages if package.is_kernel]
            kernel = pool.submit(unpack_kernel, cache / "kernels", kernel_debs)
            unpack(root, [debs[package] for package in packages if not package.is_kernel])
            _furnish(root)
            _precompile(root)
            base_commit = _seed(root / "workspace", work / "project.bundle")
            parts = kernel.result()
        for path in (parts / "later").iterdir():
            _install(path.read_bytes(), root / "usr/lib/modules" / path.name, 0o644)
        say("making the disk")
        owners = f'chown -R {_AGENT_UID}:{_AGENT_UID} "$1/home/agent" "$1/workspace"'
        make_disk(root, work / "base.raw", _DISK_MIB, owners)
        initramfs = pack_initramfs(root / "bin/busybox", parts / "boot", GUEST / "initramfs")
        (work / "initrd.img").write_bytes(initramfs)
        for name in ("vmlinuz", "vmlinux"):
            os.link(parts / name, work / name)
        (work / "image.json").write_text(json.dumps({"base_commit": base_commit}))
        shutil.rmtree(root)
        for path in work.iterdir():
            path.chmod(0o644)
        work.rename(done)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Image(done, done.name, base_commit)


def _furnish(root: Path) -> None:
    """Put our own files, links and folders beside what the packages brought."""
    for path in _files(GUEST / "root"):
        content = path.read_bytes()
        mode = 0o755 if content.startswith(b"#!") else 0o644
        _install(content, root / path.relative_to(GUEST / "root"), mode)
    reseed = parse_hex((GUEST / "reseed.hex").read_text())
    _install(reseed, root / "usr/lib/swarm/reseed", 0o755)
    (root / "etc/shadow").chmod(0o600)
    for name in ("dev", "mnt", "proc", "run", "sys", "usr/lib/modules", "var/log", "etc/dropbear"):
        make_folder(root / name)
    for name in ("root", "root/.ssh", "home/agent/.ssh"):
        make_folder(root / name, 0o700)
    _install(b"", root / "home/agent/.ssh/authorized_keys", 0o600)  # filled by the initramfs
    make_folder(root / "tmp", 0o1777)

    applets = run([str(root / "bin/busybox"), "--list"]).decode().split()
    for applet in applets:
        if applet == "sh" or not any(
            (root / folder / applet).exists() for folder in ("bin", "sbin")
        ):
            (root / "bin" / applet).unlink(missing_ok=True)
            (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")


def _install(content: bytes, target: Path, mode: int) -> None:
    make_folder(target.parent)
    target.write_bytes(content)
    target.chmod(mode)


def parse_hex(text: str) -> bytes:
    """The bytes of a listing in hexadecimal, with its comments left out."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def _precompile(root: Path) -> None:
    """Compile Python's modules as a package's installation would: a guest starts them often.

    Runs the guest's own Python on its own C library, all of it as it lies in the tree.
    """
    python = (root / "usr/bin/python3").resolve()
    library = root / "usr/lib/x86_64-linux-gnu"
    seldom = r"/encodings/(?!(__init__|aliases|ascii|latin_1|utf_8)\.py$)|/(email|urllib|logging)/"
    modules = root / "usr/lib" / python.name
    command = [library / "ld-linux-x86-64.so.2", "--library-path", library, python, "-BS"]
    command += ["-m", "compileall", "-q", "-s", root, "-p", "/", "-x", seldom, modules]
    run([str(word) for word in command], variables={"PYTHONHOME": str(root / "usr")})


def _seed(workspace: Path, bundle: Path) -> str:
    """Make the agents' project as a git repository of one commit, the same on every machine.

    `bundle` becomes a copy of it for the owner's side.
    """
    make_folder(workspace)
    variables = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    for role in ("AUTHOR", "COMMITTER"):
        variables[f"GIT_{role}_NAME"] = "swarm"
        variables[f"GIT_{role}_EMAIL"] = "swarm@localhost"
        variables[f"GIT_{role}_DATE"] = "2024-01-01T00:00:00Z"

    def git(*arguments: str) -> str:
        return run(["git", *arguments], cwd=workspace, variables=variables).decode().strip()

    git("init", "-q", "--template=", "--object-format=sha1", "--initial-branch=main")
    git("apply", "--index", "-p0", str(GUEST / "workspace.patch"))
    git("commit", "-q", "-m", "Convert lengths, masses and temperatures")
    git("bundle", "create", "-q", str(bundle), "HEAD", "main")
    return git("rev-parse", "HEAD")
