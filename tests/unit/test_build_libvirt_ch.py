"""scripts/build-libvirt-ch, as far as it can be tried without a compiler or the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/build-libvirt-ch"
START = ROOT / "scripts/libvirt-ch/start-virtchd"
TARBALL = "libvirt-11.3.0.orig.tar.xz"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens


class Bench:
    """The script with folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.prefix = folder / "opt" / "libvirt-ch"
        self.cache = folder / "cache"
        self.mirror = NOWHERE

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, "--prefix", self.prefix, *arguments],
            env=os.environ
            | {
                "SWARM_TUI_LIBVIRT_CH_CACHE": str(self.cache),
                "SWARM_TUI_LIBVIRT_CH_MIRROR": self.mirror,
                "no_proxy": "*",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def put_build(self) -> None:
        """Into the cache, a stand-in for what a compiler would have made."""
        said = self.run("--check").stdout
        (line,) = (line for line in said.splitlines() if "the build is not in the cache" in line)
        daemon = Path(line.partition(": ")[2]) / "sbin" / "virtchd"
        daemon.parent.mkdir(parents=True)
        shutil.copy("/bin/sleep", daemon)

    def put_tarball(self, content: bytes) -> None:
        self.cache.mkdir()
        (self.cache / TARBALL).write_bytes(content)

    def left(self) -> list[Path]:
        """Files that are still there in prefix and cache."""
        return [found for top in (self.prefix, self.cache) for found in top.rglob("*")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Path]:
    """A folder, and the server of it, whose address is in its file `url`."""
    served = tmp_path / "mirror"
    served.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (served / "url").write_text(f"http://127.0.0.1:{server.server_port}")
        yield served
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frobnicate"], "no such option: --frobnicate"),
        (["--prefix"], "--prefix needs a folder"),
        (["--prefix", "opt"], "--prefix needs an absolute path, not opt"),
        (["--prefix", "/"], "--prefix needs an absolute path, not /"),
        (["--prefix", "/tmp/a b"], "letters, digits"),
        (["--check", "--remove"], "--check and --remove at once"),
    ],
)
def test_a_wrong_option_is_named_with_the_usage(
    bench: Bench, arguments: list[str], said: str
) -> None:
    done = bench.run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "--prefix DIR" in done.stderr
    assert done.stdout == ""


def test_help_is_the_head_of_the_script(bench: Bench) -> None:
    done = bench.run("--help")
    assert done.returncode == 0
    for option in ("--check", "--print", "--unit", "--remove", "--prefix"):
        assert option in done.stdout
    assert "shellcheck" not in done.stdout


def test_the_prefix_is_printed_alone(bench: Bench) -> None:
    assert bench.run("--print").stdout == f"{bench.prefix}\n"


def test_check_of_an_empty_prefix_fails_and_tells_what_to_run(bench: Bench) -> None:
    done = bench.run("--check")
    assert done.returncode == 1
    assert f"not there: {bench.prefix}" in done.stdout
    assert f"build-libvirt-ch --prefix {bench.prefix}" in done.stdout
    assert bench.left() == []


def test_a_cached_build_is_installed_once_and_removed_again(bench: Bench) -> None:
    bench.put_build()
    done = bench.run()
    assert done.returncode == 0, done.stderr
    assert os.access(bench.prefix / "sbin/start-virtchd", os.X_OK)
    assert 'auth_unix_rw = "none"' in (bench.prefix / "etc/virtchd.conf").read_text()
    assert bench.run("--check").returncode == 0

    before = [(path, path.lstat().st_ctime_ns) for path in bench.left()]
    again = bench.run()
    assert again.returncode == 0
    assert "is there" in again.stderr
    assert [(path, path.lstat().st_ctime_ns) for path in bench.left()] == before

    done = bench.run("--remove")
    assert done.returncode == 0, done.stderr
    assert not bench.prefix.exists()
    assert not bench.cache.exists()
    assert bench.run("--remove").returncode == 0, "nothing to remove is no fault"


def test_an_outdated_prefix_is_told_and_renewed_and_keeps_its_settings(bench: Bench) -> None:
    bench.put_build()
    bench.run()
    (bench.prefix / "etc/virtchd.conf").write_text("# mine\n")
    (bench.prefix / "swarm-tui.stamp").write_text("incomplete\n")
    done = bench.run("--check")
    assert done.returncode == 1
    assert "not built by today's recipe, or incomplete" in done.stdout
    assert bench.run().returncode == 0
    assert bench.run("--check").returncode == 0
    assert (bench.prefix / "etc/virtchd.conf").read_text() == "# mine\n"


@pytest.mark.parametrize("verb", [[], ["--remove"]])
def test_a_folder_that_it_did_not_make_is_left_alone(bench: Bench, verb: list[str]) -> None:
    bench.put_build()
    bench.prefix.mkdir(parents=True)
    (bench.prefix / "precious").write_text("x")
    done = bench.run(*verb)
    assert done.returncode == 3
    assert str(bench.prefix) in done.stderr
    assert [path.name for path in bench.prefix.iterdir()] == ["precious"]


def test_remove_leaves_what_is_not_its_own_in_the_cache_folder(bench: Bench) -> None:
    bench.put_build()
    (bench.cache / "precious").write_text("x")
    assert bench.run("--remove").returncode == 0
    assert [path.name for path in bench.cache.iterdir()] == ["precious"]


def test_remove_refuses_while_the_daemon_runs(bench: Bench) -> None:
    bench.put_build()
    bench.run()
    with subprocess.Popen([bench.prefix / "sbin/virtchd", "60"]) as daemon:
        try:
            done = bench.run("--remove")
        finally:
            daemon.kill()
    assert done.returncode == 3
    assert f"kill {daemon.pid}" in done.stderr
    assert (bench.prefix / "sbin/virtchd").exists()


def test_a_tarball_with_another_digest_is_refused(bench: Bench, mirror: Path) -> None:
    served = mirror / "pool/main/libv/libvirt/libvirt_11.3.0.orig.tar.xz"
    served.parent.mkdir(parents=True)
    served.write_bytes(b"not libvirt")
    bench.mirror = (mirror / "url").read_text()
    done = bench.run()
    assert done.returncode == 3
    assert "refused, because its SHA-256 is not" in done.stderr
    assert "no mirror gave libvirt 11.3.0" in done.stderr
    assert [path.name for path in bench.left()] == ["lock"]


def test_a_spoilt_tarball_in_the_cache_is_thrown_away(bench: Bench) -> None:
    bench.put_tarball(b"half of it")
    done = bench.run()
    assert done.returncode == 3
    assert "is not the tarball it should be: removed" in done.stderr
    assert [path.name for path in bench.left()] == ["lock"]


def test_the_unit_is_printed_where_no_systemd_runs(bench: Bench) -> None:
    if os.getuid() == 0 and Path("/run/systemd/system").exists():
        pytest.skip("systemd runs here, and --unit would install the unit")
    done = bench.run("--unit")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert f"ExecStart={bench.prefix}/sbin/start-virtchd" in lines
    assert "KillMode=process" in lines
    assert "--timeout" not in done.stdout


def test_start_says_what_virtchd_would_only_miss_in_silence(tmp_path: Path) -> None:
    tool = shutil.which("id")
    assert tool
    (tmp_path / "id").symlink_to(tool)
    done = subprocess.run(
        ["/bin/sh", START],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    expected = "cloud-hypervisor is not in PATH" if os.getuid() == 0 else "as root only"
    assert expected in done.stderr
