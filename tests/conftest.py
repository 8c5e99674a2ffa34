"""Folders of the tests' own, so that no test sees or touches a developer's swarm."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from swarm_tui.database import Database, open_database

if TYPE_CHECKING:
    from postgres import Cluster

CACHE_VARIABLE = "SWARM_TUI_TEST_CACHE"
"""Where guest images are kept from one test run to the next."""


_ALONE: Final = (
    "test_ch_swarm",
    "test_demo_ch",
    "test_disk",
    "test_guest",
    "test_guest_real",
    "test_remote",
    "test_soak",
)
"""Files whose real VMs have a daemon of their own, or none."""

_LONGEST: Final = ("libvirtd", "tests/e2e/test_remote.py", "tests/ch/test_faults.py")
"""Groups that begin before all others: else one of them would go on when all others are done."""


# Whoever started us in the background may have had it ignored, and a child would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pytest-xdist run real VMs side by side, file by file.

    But for those that share a libvirtd of this machine, and a swarm: they are one after the other.
    """
    starts: dict[pytest.Item, int] = {}
    for item in items:
        if item.get_closest_marker("vm"):
            is_alone = item.path.stem in _ALONE or "/ch/" in item.nodeid or "[ch" in item.nodeid
            group = item.nodeid.partition("::")[0] if is_alone else "libvirtd"
            item.add_marker(pytest.mark.xdist_group(group))
            starts[item] = _LONGEST.index(group) if group in _LONGEST else len(_LONGEST)
    items.sort(key=lambda item: starts.get(item, 0))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's reaches a test, and no test reaches a developer's folders."""
    for variable in list(os.environ):
        if variable.startswith("SWARM_TUI_") and variable != CACHE_VARIABLE:
            monkeypatch.delenv(variable)
    for variable in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TMUX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SWARM_TUI_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def clean_root() -> Iterator[None]:
    """No test leaves anything in the root folder, where the next one would find it."""
    before = os.listdir("/")
    yield
    made = set(os.listdir("/")).difference(before)
    assert not made, f"this test, or one beside it, made {sorted(made)} in /"


@pytest.fixture
def swarm_home(monkeypatch: pytest.MonkeyPatch, image_cache: Path) -> Iterator[Path]:
    """An empty SWARM_TUI_HOME for real VMs; guest images are shared between runs.

    It lies below /var/tmp: QEMU may run as a user of its own, who cannot pass pytest's folders.
    """
    with _fresh_home() as home:
        monkeypatch.setenv("SWARM_TUI_HOME", str(home))
        monkeypatch.setenv("SWARM_TUI_PATHS_CACHE", str(image_cache))
        yield home


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """Such a folder for a swarm that several tests share; the environment stays as it is."""
    with _fresh_home() as home:
        yield home


@pytest.fixture(scope="session")
def image_cache() -> Path:
    """The cache folder with the guest images, kept between runs."""
    default = "/var/cache" if os.getuid() == 0 else "~/.cache"
    named = os.environ.get(CACHE_VARIABLE, f"{default}/swarm-tui-test")
    folder = Path(named).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    return folder


@contextmanager
def _fresh_home() -> Iterator[Path]:
    # Short, because sockets below it have at most 107 characters.
    home = Path(tempfile.mkdtemp(prefix="swarm-", dir="/var/tmp"))
    home.chmod(0o711)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Have a terminal on standard input, on which this is typed."""
    master, slave = os.openpty()

    def type_in(text: str) -> None:
        os.write(master, f"{text}\n".encode())

    with os.fdopen(slave, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield type_in
    os.close(master)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for this session; who stops it starts it again."""
    from postgres import cluster

    with cluster() as running:
        yield running


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """The URL of an empty database on it."""
    url = postgres.make_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty shared store; whoever takes it is tested with both kinds."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/shared/store.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(store_url: str) -> Iterator[Database]:
    """Such a store, opened."""
    opened = open_database(store_url)
    yield opened
    opened.close()
