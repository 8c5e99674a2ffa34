"""Debian packages: what apt would install, downloaded and unpacked, never installed.

The closure comes from apt itself, so that one list of names does for every release; names of
libraries differ between them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from swarm_tui.errors import SetupError
from swarm_tui.outpost.programs import (
    Failed,
    Say,
    environment,
    failure,
    make_folder,
    replace,
    run,
)

_KERNEL: Final = "linux-image-cloud-amd64"
_WANTED: Final = (
    _KERNEL,
    "bash",
    "busybox-static",
    "dropbear-bin",
    "git",
    "libc-bin",
    "ncurses-base",
    "python3-minimal",
)
_PRUNED: Final = re.compile(
    # Only maintainer scripts need these,
    r"adduser|base-files|cdebconf|debconf.*|debianutils|dpkg|install-info|media-types|.*awk|tar"
    # only parts of git that are left out (https, documentation, send-email),
    r"|git-man|libcurl.*|liberror-perl|(lib)?perl.*"
    # no file at run time,
    r"|gcc-.*-base|openssl-provider-legacy"
    # and only a kernel that is installed: we load its drivers and build its initramfs ourselves.
    r"|dracut|initramfs-tools|kmod|linux-base|tiny-initramfs"
)
_LEFT_OUT: Final = (
    "./etc/default",
    "./etc/init.d",
    "./etc/skel",
    "./sbin/ldconfig",
    "./usr/bin/git-shell",
    "./usr/bin/localedef",
    "./usr/bin/scalar",
    "./usr/lib/git-core/git-daemon",
    "./usr/lib/git-core/git-http*",
    "./usr/lib/git-core/git-imap-send",
    "./usr/lib/git-core/git-remote-*",
    "./usr/lib/git-core/git-shell",
    "./usr/lib/git-core/scalar",
    "./usr/lib/systemd",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/share/applications",
    "./usr/share/bash-completion",
    "./usr/share/binfmts",
    "./usr/share/bug",
    "./usr/share/doc",
    "./usr/share/git-core/contrib",
    "./usr/share/gitweb",
    "./usr/share/info",
    "./usr/share/lintian",
    "./usr/share/locale",
    "./usr/share/man",
    "./usr/share/menu",
    "./usr/share/perl5",
    "./usr/share/python3",
    "./usr/sbin/ldconfig",
)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    file: str
    sha256: str

    @property
    def is_kernel(self) -> bool:
        return self.name.startswith("linux-")


def resolve(
    stamp: Path, can_do_without_apt: Callable[[Sequence[Package]], bool], say: Say
) -> Sequence[Package]:
    """The packages of an image, by name; remembered in `stamp` until apt may answer differently.

    Where apt has no answer any more (its lists were removed), the remembered packages still
    serve if `can_do_without_apt` says so of them. Raises SetupError.
    """
    state = _apt_state()
    known_state, known = _remembered(stamp)
    if known and known_state == state:
        return known
    say("asking apt for the packages")
    try:
        packages = _ask_apt()
    except SetupError:
        if known and can_do_without_apt(known):
            say("apt knows no packages now; those from before will do")
            return known
        raise
    content = {"state": state, "packages": [asdict(package) for package in packages]}
    replace(stamp, json.dumps(content).encode())
    return packages


def _remembered(stamp: Path) -> tuple[str, Sequence[Package]]:
    try:
        stored = json.loads(stamp.read_bytes())
        return stored["state"], [Package(**package) for package in stored["packages"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", []


def _apt_state() -> str:
    """Changes whenever apt may: by new lists, sources, pins or configuration."""
    names = ("apt.conf", "apt.conf.d", "preferences", "preferences.d", "sources.list")
    paths = ["/var/lib/apt/lists", "/etc/apt/sources.list.d", *(f"/etc/apt/{n}" for n in names)]
    parts = [*_WANTED, _PRUNED.pattern, os.environ.get("APT_CONFIG", "")]
    for path in paths:
        try:
            parts.append(str(os.stat(path).st_mtime_ns))
        except OSError:
            parts.append("none")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def _ask_apt() -> Sequence[Package]:
    unwanted = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    options = ["--recurse", *(f"--no-{word}" for word in unwanted)]
    try:
        listing = run(["apt-cache", "depends", *options, *_WANTED]).decode()
        names = closure(parse_depends(listing), _WANTED)
        offers = run(["apt-get", "download", "--print-uris", "-qq", *names]).decode()
    except Failed as error:
        raise _unknown(error.stderr) from error
    packages = parse_offers(offers)
    missing = set(names) - {package.name for package in packages}
    if missing:
        raise _unknown("No file for " + ", ".join(sorted(missing)))
    if not any(package.is_kernel for package in packages):
        raise _unknown(f"{_KERNEL} leads to no kernel.")
    return packages


def parse_depends(listing: str) -> Mapping[str, Sequence[str]]:
    """`apt-cache depends --recurse` as package → packages; of alternatives the first real one."""
    edges: dict[str, list[str]] = {}
    package = ""
    is_settled = False
    for line in listing.splitlines():
        if not line.startswith(" "):
            package = line
            edges.setdefault(package, [])
            is_settled = False
        elif match := re.match(r" ([ |])(?:Pre)?Depends: (\S+)", line):
            is_real = not match[2].startswith("<")
            if is_real and not is_settled:
                edges[package].append(match[2])
            is_settled = match[1] == "|" and (is_real or is_settled)
    return edges


def closure(edges: Mapping[str, Sequence[str]], roots: Iterable[str]) -> Sequence[str]:
    """All packages that the roots need, but what is pruned and the kernel's empty front."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found and not _PRUNED.fullmatch(name):
            found.add(name)
            waiting.extend(edges.get(name, ()))
    return sorted(found - {_KERNEL})


def parse_offers(listing: str) -> Sequence[Package]:
    """`apt-get download --print-uris` as packages by name."""
    # 'http://…/bash_5.2.15-2_amd64.deb' bash_5.2.15-2_amd64.deb 1490736 SHA256:…
    found = re.findall(r"^'[^']+' ((\S+?)_\S+\.deb) \d+ SHA256:([0-9a-f]{64})$", listing, re.M)
    return sorted((Package(name, file, sha256) for file, name, sha256 in found), key=_by_name)


def _by_name(package: Package) -> str:
    return package.name


def _unknown(detail: str) -> SetupError:
    return SetupError(
        "apt does not know the packages of the guest image",
        detail,
        "Run apt-get update as root. The image is made of packages of Debian 12 or later.",
    )


def download(folder: Path, packages: Sequence[Package], say: Say) -> Mapping[Package, Path]:
    """Package → its file below `folder`; files of no package here are removed.

    Raises SetupError, StorageFull, OSError.
    """
    debs = {package: folder / package.file for package in packages}
    missing = [package for package, deb in debs.items() if not deb.exists()]
    if missing:
        say(f"downloading {len(missing)} packages")
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            _fetch(Path(partial), missing)
            for package in missing:
                (Path(partial) / package.file).rename(debs[package])
    for stale in set(folder.glob("*.deb")) - set(debs.values()):
        stale.unlink()
    return debs


def _fetch(folder: Path, packages: Sequence[Package]) -> None:
    names = [package.name for package in packages]
    try:
        # As root, apt would fetch as a user who cannot write to our folder.
        options = ["-qq", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=1"]
        run(["apt-get", "download", *options, *names], cwd=folder)
    except Failed as error:
        raise SetupError(
            "The packages of the guest image could not be downloaded",
            error.stderr,
            "Check the network and the proxy. If a file is gone: apt-get update, as root.",
        ) from error
    for package in packages:
        path = folder / package.file
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != package.sha256:
            raise SetupError(
                f"{package.name} is not the file that apt promised",
                hint="Another apt may have run meanwhile: try again, after apt-get update.",
            )


def unpack(root: Path, debs: Iterable[Path]) -> None:
    """Unpack into a tree with merged /usr, without what a guest never reads.

    Raises Failed, StorageFull.
    """
    for name in ("bin", "sbin", "lib", "lib64"):
        make_folder(root / "usr" / name)
        (root / name).symlink_to(f"usr/{name}")
    longest_first = sorted(debs, key=lambda deb: -deb.stat().st_size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda deb: _extract(deb, root), longest_first))


def _extract(deb: Path, root: Path) -> None:
    excluded = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
    command = ["tar", "-xp", "--numeric-owner", "--keep-directory-symlink", *excluded]
    with _content(deb) as source:
        done = subprocess.run(
            [*command, "-C", str(root)],
            stdin=source.stdout,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    if done.returncode != 0 or source.returncode != 0:
        raise failure(f"unpacking {deb.name}", done.stderr)


def members(deb: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Base name and content of each regular file whose base name matches `wanted` whole."""
    with _content(deb) as source, tarfile.open(fileobj=source.stdout, mode="r|") as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if member.isfile() and wanted.fullmatch(name):
                content = archive.extractfile(member)
                assert content  # it is a regular file
                yield name, content.read()


def _content(deb: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(deb)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
