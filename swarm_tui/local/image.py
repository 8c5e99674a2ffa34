"""The guest image: a kernel, an initramfs and a root disk, made of Debian packages without root.

    <cache>/debs/             packages as downloaded, the present set only
    <cache>/packages.json     what apt resolved, and the state of apt that it was resolved in
    <cache>/kernels/<key>/    kernel and drivers unpacked from one kernel package
    <cache>/images/<digest>/  a finished image; never changed, holds no secrets, may be shared

An image is named by its content: the packages' digests, our own files (`guest/`) and `_FORMAT`.
Packages are unpacked, never installed: no maintainer script runs, nothing needs chroot or mount,
and ownership is set under fakeroot.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError, StorageFull

PROGRAMS: Final[Mapping[str, str]] = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "dpkg-deb": "dpkg",
    "tar": "tar",
    "git": "git",
    "mke2fs": "e2fsprogs",
    "qemu-img": "qemu-utils",
    "fakeroot": "fakeroot",
    "lz4": "lz4",
}
"""Program that a build runs → the Debian package that holds it."""

COMMAND_LINE: Final = (
    "console=ttyS0 quiet loglevel=3 nokaslr mitigations=off cryptomgr.notests tsc=reliable"
    " no_timer_check random.trust_cpu=on audit=0 apparmor=0 i8042.noaux i8042.nokbd"
    " 8250.nr_uarts=1 rcupdate.rcu_expedited=1"
)
"""The kernel's command line; `swarm.name=NAME` may be added."""

PROBE_MARK: Final = b"SWARM-PROBE-OK"
"""What the image prints on its serial port when booted with `rdinit=/probe`."""

Say = Callable[[str], None]

_FORMAT: Final = 1
_GUEST: Final = Path(__file__).with_name("guest")
_DISK_MIB: Final = 1024
_AGENT_UID: Final = 1000
_TOOLS: Final = {
    "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
}

_KERNEL: Final = "linux-image-cloud-amd64"
_PACKAGES: Final = (
    "busybox-static",
    "bash",
    "dropbear-bin",
    "git",
    "python3-minimal",
    "ncurses-base",
)
_PRUNED: Final = re.compile(
    # Needed by maintainer scripts, or by parts that are left out below.
    r"(lib)?perl.*|liberror-perl|git-man|libcurl.*|debconf.*|cdebconf|dpkg|adduser|base-files"
    r"|debianutils|tar|.*awk|gcc-.*-base|media-types|mailcap|install-info"
    # The kernel's own: we load its drivers ourselves, and build our own initramfs.
    r"|kmod|linux-base|initramfs-tools|dracut|tiny-initramfs|systemd.*|udev"
    r"|openssl.*|python3\.\d+-doc"
)
_LEFT_OUT: Final = (
    *(
        f"./usr/share/{name}"
        for name in ("doc", "man", "locale", "info", "lintian", "i18n", "perl5")
    ),
    *(f"./usr/share/{name}" for name in ("bash-completion", "gitweb", "git-core/contrib", "bug")),
    *(f"./usr/share/{name}" for name in ("python3", "applications", "menu", "binfmts")),
    *(
        f"./etc/{name}"
        for name in ("init.d", "default", "systemd", "ufw", "skel", "bash_completion.d")
    ),
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/lib/valgrind",
    "./usr/lib/git-core/git-http*",
    "./usr/lib/git-core/git-remote-*",
    "./usr/lib/git-core/git-imap-send",
    "./usr/lib/git-core/git-daemon",
    "./usr/lib/git-core/git-shell",
    "./usr/lib/git-core/scalar",
    "./usr/bin/scalar",
    "./usr/bin/git-shell",
)
_BOOT_DRIVERS: Final = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon"),
    "ext4",
)
_LATER_DRIVERS: Final = ("button", "evdev", "pvpanic", "pvpanic_mmio", "virtio_rng")


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image; all its files are readable by any user and never change."""

    folder: Path
    digest: str
    base_commit: str
    """Commit at which every new guest's /workspace stands."""

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
        """Initramfs without keys; good for the boot probe. Guests need one by `write_initrd`."""
        return self.folder / "initrd.img"

    @property
    def base(self) -> Path:
        """Root disk (qcow2), to be used as the backing file of a guest's own."""
        return self.folder / "base.qcow2"


def write_initrd(image: Image, target: Path, authorized_key: str, host_key: bytes) -> None:
    """Write an initramfs that gives a guest its first keys, readable by the owner alone.

    `authorized_key` is the OpenSSH public key line that may log in as root and agent, `host_key`
    the private host key in dropbear's format (`guest.dropbear_key`). The guest takes both at its
    first boot only. Raises StorageFull, SetupError.
    """
    keys = {
        "keys/authorized_keys": (0o100600, authorized_key.strip().encode() + b"\n"),
        "keys/host_key": (0o100600, host_key),
    }
    with _storage("write the guests' initramfs"):
        content = image.initrd.read_bytes() + _pack({"keys": (0o040700, b""), **keys})
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        temporary.rename(target)


def build_image(cache: Path, on_progress: Say) -> Image:
    """The image for the packages that apt would install now; built if `cache` has it not yet.

    Blocks: some milliseconds when it is there, else about two seconds, plus the download. Raises
    SetupError (a program, a package or the network is missing) and StorageFull.
    """
    require_x86_64()
    with _storage("build the guest image"):
        for name in ("debs", "kernels", "images"):
            _make_folder(cache / name)
        packages = _resolve(cache, on_progress)
        digest = _digest(packages)
        folder = cache / "images" / digest
        if image := _load(folder):
            return image
        with _lock(cache / "lock", on_progress):
            if not (image := _load(folder)):
                image = _build(cache, packages, folder, on_progress)
        return image


def require_x86_64() -> None:
    """Raise SetupError on another architecture, which has other kernels and boot protocols."""
    if platform.machine() != "x86_64":
        raise SetupError(
            "A local swarm needs an x86-64 machine so far", f"This one is {platform.machine()}."
        )


def _load(folder: Path) -> Image | None:
    try:
        facts = json.loads((folder / "image.json").read_text())
    except FileNotFoundError:
        return None
    return Image(folder, facts["digest"], facts["base_commit"])


def _digest(packages: Sequence[Package]) -> str:
    sha256 = hashlib.sha256(f"{_FORMAT} {_DISK_MIB}".encode())
    for package in packages:
        sha256.update(f"{package.file} {package.sha256}\n".encode())
    for path in _guest_files(_GUEST):
        content = path.read_bytes()
        sha256.update(f"{path.relative_to(_GUEST)} {len(content)}\n".encode() + content)
    return sha256.hexdigest()[:32]


def _guest_files(folder: Path) -> Sequence[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.parent != _GUEST.parent
    )


# What apt would install


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    file: str
    sha256: str

    @property
    def is_kernel(self) -> bool:
        return self.name.startswith("linux-")


def _resolve(cache: Path, on_progress: Say) -> Sequence[Package]:
    """The closure of our packages; remembered until apt's lists, sources or pins change."""
    stamp = cache / "packages.json"
    state = _apt_state()
    known = _remembered(stamp)
    if known and known[0] == state:
        return known[1]
    on_progress("asking apt for the packages")
    try:
        packages = _ask_apt()
    except SetupError:
        if known and (cache / "images" / _digest(known[1])).exists():
            on_progress("apt knows no packages now: using the image that is there")
            return known[1]
        raise
    content = json.dumps({"state": state, "packages": [asdict(package) for package in packages]})
    temporary = stamp.with_name(f".{stamp.name}.{os.getpid()}")
    temporary.write_text(content)
    temporary.rename(stamp)
    return packages


def _remembered(stamp: Path) -> tuple[str, Sequence[Package]] | None:
    try:
        stored = json.loads(stamp.read_text())
        return str(stored["state"]), [Package(**package) for package in stored["packages"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _apt_state() -> str:
    """Changes whenever apt may answer differently: new lists, sources, pins or configuration."""
    parts = [os.environ.get("APT_CONFIG", ""), " ".join(_PACKAGES)]
    names = ["sources.list", "sources.list.d", "preferences", "preferences.d", "apt.conf.d"]
    for path in ["/var/lib/apt/lists", *(f"/etc/apt/{name}" for name in names)]:
        try:
            parts.append(str(os.stat(path).st_mtime_ns))
        except OSError:
            parts.append("none")
    return " ".join(parts)


def _ask_apt() -> Sequence[Package]:
    without = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    roots = [_KERNEL, *_PACKAGES]
    listing = _apt(
        ["apt-cache", "depends", "--recurse", *(f"--no-{word}" for word in without), *roots]
    )
    names = _closure(_parse_depends(listing), roots)
    uris = _apt(["apt-get", "download", "--print-uris", "-qq", *names])
    packages = []
    for line in uris.splitlines():
        # 'http://…/bash_5.2.15-2_amd64.deb' bash_5.2.15-2_amd64.deb 1490736 SHA256:…
        match = re.fullmatch(r"'[^']+' ((\S+?)_\S+\.deb) \d+ SHA256:([0-9a-f]{64})", line)
        if match:
            packages.append(Package(match[2], match[1], match[3]))
    missing = set(names) - {package.name for package in packages}
    if missing:
        raise SetupError("apt offers no file for " + ", ".join(sorted(missing)), uris)
    return sorted(packages, key=lambda package: package.name)


def _parse_depends(listing: str) -> Mapping[str, Sequence[str]]:
    """`apt-cache depends --recurse` as package → packages; of alternatives the first."""
    edges: dict[str, list[str]] = {}
    package = ""
    is_settled = False
    for line in listing.splitlines():
        if not line.startswith((" ", "<")):
            package = line
            edges.setdefault(package, [])
            is_settled = False
        elif match := re.match(r" ([ |])(?:Pre)?Depends: (\S+)", line):
            is_real = not match[2].startswith("<")
            if is_real and not is_settled:
                edges[package].append(match[2])
            is_settled = match[1] == "|" and (is_real or is_settled)
    return edges


def _closure(edges: Mapping[str, Sequence[str]], roots: Iterable[str]) -> Sequence[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or _PRUNED.fullmatch(name) or ":" in name:
            continue
        found.add(name)
        waiting.extend(edges.get(name, ()))
    if not any(re.fullmatch(r"linux-image-.+-cloud-amd64", name) for name in found):
        raise _unknown_package(f"{_KERNEL} leads to no kernel")
    found.discard(_KERNEL)  # holds nothing but its dependency
    return sorted(found)


def _apt(command: Sequence[str]) -> str:
    try:
        return _run(command).decode("utf-8", "replace")
    except _Failed as error:
        raise _unknown_package(error.stderr) from error


def _unknown_package(detail: str) -> SetupError:
    return SetupError(
        "apt does not know the packages of the guest image",
        detail,
        "Run apt-get update (as root). The image is made of Debian 12 or 13 packages.",
    )


# The build


def _build(cache: Path, packages: Sequence[Package], folder: Path, on_progress: Say) -> Image:
    _require_programs()
    for leftover in folder.parent.glob("*.partial"):  # of a build that was killed
        shutil.rmtree(leftover)
    on_progress("downloading packages")
    debs = _download(cache / "debs", packages)
    work = folder.with_name(f"{folder.name}.partial")
    root = work / "root"
    _make_folder(work)
    try:
        on_progress("unpacking packages")
        with ThreadPoolExecutor(2) as pool:
            kernel_debs = [debs[package] for package in packages if package.is_kernel]
            kernel = pool.submit(_kernel, cache / "kernels", kernel_debs)
            _unpack(root, [debs[package] for package in packages if not package.is_kernel])
            _furnish(root)
            base_commit = _seed(root / "workspace")
            drivers = kernel.result()
        _write_drivers(drivers / "later", root / "usr/lib/modules")
        on_progress("making the disk")
        _make_disk(root, work / "base.qcow2")
        _write_initramfs(root, drivers / "boot", work / "initrd.img")
        for name in ("vmlinuz", "vmlinux"):
            os.link(drivers / name, work / name)
        facts = {"digest": folder.name, "base_commit": base_commit}
        (work / "image.json").write_text(json.dumps(facts))
        shutil.rmtree(root)
        for path in work.iterdir():
            path.chmod(0o644)
        work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    image = _load(folder)
    assert image
    return image


def _download(folder: Path, packages: Sequence[Package]) -> Mapping[Package, Path]:
    debs = {package: folder / package.file for package in packages}
    missing = [package for package, deb in debs.items() if not deb.exists()]
    if missing:
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            # apt checks what it fetches against the signed lists.
            command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root"]
            try:
                _run([*command, *(package.name for package in missing)], cwd=Path(partial))
            except _Failed as error:
                raise SetupError(
                    "The packages of the guest image could not be downloaded",
                    error.stderr,
                    "Check the network and the proxy; if files are gone, run apt-get update.",
                ) from error
            for package in missing:
                deb = Path(partial) / package.file
                with open(deb, "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != package.sha256:
                        raise SetupError(
                            f"{package.file} is not the file that apt promised",
                            hint="Run apt-get update and try again.",
                        )
                deb.rename(debs[package])
    for stale in set(folder.glob("*.deb")) - set(debs.values()):
        stale.unlink()
    return debs


def _unpack(root: Path, debs: Sequence[Path]) -> None:
    for name in ("bin", "sbin", "lib", "lib64"):  # merged /usr
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    excludes = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    command = ["tar", "-xp", "--numeric-owner", "--keep-directory-symlink", *excludes]
    for deb in debs:
        _run([*command, "-C", str(root)], stdin=_run(["dpkg-deb", "--fsys-tarfile", str(deb)]))


def _furnish(root: Path) -> None:
    """Put our own files, links and folders beside what the packages brought."""
    for path in _guest_files(_GUEST / "root"):
        _install(path, root / path.relative_to(_GUEST / "root"))
    reseed = root / "usr/lib/swarm/reseed"
    reseed.write_bytes(_parse_hex((_GUEST / "reseed.hex").read_text()))
    reseed.chmod(0o755)
    (root / "etc/shadow").chmod(0o600)
    for name in ("proc", "sys", "dev", "run", "mnt", "var/log", "usr/lib/modules", "etc/dropbear"):
        _make_folder(root / name)
    for name in ("root", "root/.ssh", "home/agent/.ssh"):
        _make_folder(root / name, 0o700)
    _make_folder(root / "tmp", 0o1777)
    busybox = root / "bin/busybox"
    for applet in _run([str(busybox), "--list"]).decode().split():
        if not any((root / folder / applet).exists() for folder in ("bin", "sbin")):
            (root / "bin" / applet).symlink_to("busybox")
    (root / "bin/sh").unlink()
    (root / "bin/sh").symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")


def _install(source: Path, target: Path) -> None:
    content = source.read_bytes()
    _make_folder(target.parent)
    target.write_bytes(content)
    target.chmod(0o755 if content.startswith(b"#!") else 0o644)


def _parse_hex(text: str) -> bytes:
    return bytes.fromhex("".join(line.split("#")[0] for line in text.splitlines()))


def _seed(workspace: Path) -> str:
    """Make the workspace a git repository with one commit, the same on every machine."""
    identity = {"NAME": "swarm", "EMAIL": "swarm@localhost", "DATE": "2024-01-01T00:00:00Z"}
    environment = {
        f"GIT_{role}_{key}": value
        for role in ("AUTHOR", "COMMITTER")
        for key, value in identity.items()
    } | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}

    def git(*arguments: str) -> str:
        return _run(["git", *arguments], cwd=workspace, more=environment).decode().strip()

    git("init", "-q", "--template=", "--object-format=sha1", "--initial-branch=main")
    git("add", "--all")
    git("commit", "-q", "--no-gpg-sign", "-m", "Convert lengths, masses and temperatures")
    return git("rev-parse", "HEAD")


def _make_disk(root: Path, target: Path) -> None:
    raw = target.with_suffix(".ext4")
    with open(raw, "wb") as file:
        file.truncate(_DISK_MIB << 20)
    script = (
        f'chown -R {_AGENT_UID}:{_AGENT_UID} "$1/home/agent" "$1/workspace" && '
        "exec mke2fs -q -F -t ext4 -O ^metadata_csum,^64bit -J size=8 -m 0 -N 65536 -L swarm"
        ' -E lazy_itable_init=1,root_owner=0:0 -d "$1" "$2"'
    )
    command = ["sh", "-c", script, "sh", str(root), str(raw)]
    _run(command if os.getuid() == 0 else ["fakeroot", "--", *command])
    _run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(target)])
    raw.unlink()


# Kernel, drivers, initramfs


def _kernel(folder: Path, debs: Sequence[Path]) -> Path:
    """Kernel and drivers of the kernel packages: vmlinuz, vmlinux, boot/ and later/."""
    key = hashlib.sha256(
        " ".join(
            [str(_FORMAT), *_BOOT_DRIVERS, *_LATER_DRIVERS, *(deb.name for deb in debs)]
        ).encode()
    ).hexdigest()[:32]
    done = folder / key
    if done.exists():
        return done
    work = folder / f"{key}.partial"
    shutil.rmtree(work, ignore_errors=True)
    _make_folder(work)
    modules: dict[str, bytes] = {}
    for deb in debs:
        for name, content in _members(deb):
            if name.startswith("vmlinuz-"):
                (work / "vmlinuz").write_bytes(content)
                (work / "vmlinux").write_bytes(_extract_elf(content))
            elif match := re.fullmatch(r"(.+)\.ko(\.xz)?", name):
                modules[match[1].replace("-", "_")] = content
    boot = _load_order(_BOOT_DRIVERS, modules)
    later = [name for name in _load_order(_LATER_DRIVERS, modules) if name not in boot]
    for part, names in (("boot", boot), ("later", later)):
        _make_folder(work / part)
        for name in names:
            (work / part / f"{name}.ko").write_bytes(_decompress(modules[name]))
        (work / part / "order").write_text("".join(f"{name}.ko\n" for name in names))
    work.rename(done)
    return done


def _members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Base name and content of each regular file of a package that a kernel is made of."""
    with (
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, env=_TOOLS
        ) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        for member in archive:
            name = os.path.basename(member.name)
            if member.isfile() and (name.startswith("vmlinuz-") or ".ko" in name):
                content = archive.extractfile(member)
                assert content
                yield name, content.read()


def _load_order(wanted: Sequence[str], modules: Mapping[str, bytes]) -> Sequence[str]:
    """Drivers in the order of loading, each after what it depends on.

    What is not there as a module is built in: which ones are differs between kernels.
    """
    order: list[str] = []

    def add(name: str) -> None:
        if name in modules and name not in order:
            for needed in _depends(_decompress(modules[name])):
                add(needed)
            order.append(name)

    for name in wanted:
        add(name)
    return order


def _depends(module: bytes) -> Sequence[str]:
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    names = match[1].decode("ascii") if match else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def _extract_elf(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage (Documentation/arch/x86/boot.rst, payload_offset)."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    elf = _decompress(image[start : start + length])
    if image[0x202:0x206] != b"HdrS" or not elf.startswith(b"\x7fELF"):
        raise SetupError("The kernel package holds no kernel that we can unpack")
    return elf


def _decompress(content: bytes) -> bytes:
    if content.startswith(b"\xfd7zX"):
        return lzma.LZMADecompressor().decompress(content)
    if content.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(content)
    if content.startswith(b"\x02\x21\x4c\x18"):
        # The kernel's build appends the unpacked size, four bytes that lz4 would stumble over.
        return _run(["lz4", "-dcq"], stdin=content[:-4])
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        return _run(["zstd", "-dcq"], stdin=content)
    return content


def _write_drivers(source: Path, target: Path) -> None:
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)


def _write_initramfs(root: Path, drivers: Path, target: Path) -> None:
    entries = dict.fromkeys(("bin", "dev", "root", "modules"), (0o040755, b""))
    entries["dev/console"] = (0o020600, b"")
    entries["bin/busybox"] = (0o100755, (root / "bin/busybox").read_bytes())
    for name in ("init", "probe"):
        entries[name] = (0o100755, (_GUEST / "initramfs" / name).read_bytes())
    for path in sorted(drivers.iterdir()):
        entries[f"modules/{path.name}"] = (0o100644, path.read_bytes())
    target.write_bytes(_pack(entries))


def _pack(entries: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A cpio archive ("newc") of path → (mode, content), everything owned by root.

    The kernel accepts several such archives one after the other
    (Documentation/driver-api/early-userspace/buffer-format.rst). The only device is the console.
    """
    packed = bytearray()
    for number, (name, (mode, content)) in enumerate(
        [*entries.items(), ("TRAILER!!!", (0, b""))], start=1
    ):
        device = (5, 1) if mode & 0o170000 == 0o020000 else (0, 0)
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
        packed += b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        packed += bytes(-len(packed) % 4) + content
        packed += bytes(-len(packed) % 4)
    return bytes(packed) + bytes(-len(packed) % 512)


# The machine


class _Failed(Exception):
    def __init__(self, command: Sequence[str], stderr: str) -> None:
        self.command = command
        self.stderr = stderr
        super().__init__(f"{command[0]}: {stderr}")


def _run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """Standard output of a program. Raises SetupError (it is missing), StorageFull, _Failed."""
    environment = dict(os.environ) | _TOOLS | dict(more or {})
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, cwd=cwd, env=environment, check=False
        )
    except FileNotFoundError as error:
        raise _missing_programs([command[0]]) from error
    stderr = done.stderr.decode("utf-8", "replace").strip()
    if "No space left on device" in stderr:
        raise StorageFull("No room to build the guest image", stderr)
    if done.returncode != 0:
        raise _Failed(command, stderr)
    return done.stdout


def _require_programs() -> None:
    missing = [name for name in PROGRAMS if not shutil.which(name, path=_TOOLS["PATH"])]
    if os.getuid() == 0 and "fakeroot" in missing:
        missing.remove("fakeroot")
    if missing:
        raise _missing_programs(missing)


def _missing_programs(names: Sequence[str]) -> SetupError:
    packages = sorted({PROGRAMS.get(name, name) for name in names})
    return SetupError(
        "Missing to build the guest image: " + ", ".join(names),
        hint="apt-get install --no-install-recommends " + " ".join(packages),
    )


def _make_folder(folder: Path, mode: int = 0o755) -> None:
    """Make it with exactly this mode, whatever the umask: QEMU may run as another user."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)


@contextmanager
def _storage(what: str) -> Iterator[None]:
    try:
        yield
    except _Failed as error:
        raise SetupError(f"Could not {what}", str(error)) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"No room to {what}", str(error)) from error
        raise SetupError(f"Could not {what}", str(error)) from error


@contextmanager
def _lock(path: Path, on_progress: Say) -> Iterator[None]:
    """Hold a lock that the kernel lets go of when we die."""
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another build of the image")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
