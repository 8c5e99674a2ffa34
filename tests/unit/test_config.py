"""The configuration: what a person writes, and what they are told."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from swarm_tui.config import Loaded, load, render_config, rows
from swarm_tui.errors import ConfigError, SetupError
from swarm_tui.model import HostName
from swarm_tui.paths import locate, make_private, make_traversable


def read(tmp_path: Path, text: str, **environ: str) -> Loaded:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load({"SWARM_TUI_HOME": str(tmp_path), **environ}, file=file)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **environ)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.detail.splitlines()]


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    loaded = load({"SWARM_TUI_HOME": str(tmp_path)})
    config = loaded.config
    assert not config.hosts
    assert (config.ui.theme, config.ui.view, config.ui.ascii) == ("midnight", "tiles", "auto")
    assert config.snapshots.keep == 8
    assert config.snapshots.folder == tmp_path / "data/snapshots"
    assert (config.local.memory_mib, config.local.agents, config.local.accel) == (256, 3, "auto")
    assert config.supervisor.poll_s == 1.0
    assert {source.kind for source in loaded.sources.values()} == {"default"}
    assert not list(tmp_path.iterdir()), "reading makes nothing"


def test_a_file_gives_values_with_their_lines(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        """
        [ui]
        theme = "daylight"
        view = "table"
        [hosts.lab]
        uri = "ch+ssh://me@lab/system?mode=direct&no_tty=1"
        identity = "~/key"
        snapshots = "/srv/swarm"
        [hosts.here]
        uri = "qemu:///session"
        [supervisor]
        poll_s = 2
        """,
    )
    assert loaded.config.ui.view == "table"
    assert list(loaded.config.hosts) == ["lab", "here"]
    lab, here = loaded.config.hosts.values()
    assert lab.uri == "ch+ssh://me@lab/system?mode=direct&no_tty=1"
    assert lab.identity == Path.home() / "key"
    assert (lab.snapshots, lab.guest_identity) == (Path("/srv/swarm"), None)
    assert lab.connection == f"{lab.uri}&keyfile={Path.home()}/key"
    assert here.identity is None
    assert here.connection == here.uri
    assert loaded.config.supervisor.poll_s == 2.0
    assert str(loaded.sources["ui.theme"]) == f"{tmp_path}/config.toml:3"
    assert str(loaded.sources["hosts.lab.uri"]) == f"{tmp_path}/config.toml:6"


def test_the_command_line_overrules_the_environment_and_that_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("[local]\nagents = 4\nmemory_mib = 300\naccel = 'tcg'\n")
    loaded = load(
        {
            "SWARM_TUI_HOME": str(tmp_path),
            "SWARM_TUI_LOCAL_AGENTS": "5",
            "SWARM_TUI_LOCAL_MEMORY_MIB": "400",
        },
        {"local.agents": "6"},
        file=file,
    )
    local = loaded.config.local
    assert (local.agents, local.memory_mib, local.accel) == (6, 400, "tcg")
    assert [str(loaded.sources[f"local.{key}"]) for key in ("agents", "memory_mib", "accel")] == [
        "command line",
        "SWARM_TUI_LOCAL_MEMORY_MIB",
        f"{file}:4",
    ]


def test_the_network_of_the_local_swarm_is_a_private_one(tmp_path: Path) -> None:
    local = read(tmp_path, "[local]\nnetwork = '10.9.8.0/24'\nvirtchd = '/run/x'").config.local
    assert (local.network, local.virtchd) == ("10.9.8.0/24", Path("/run/x"))
    local = read(tmp_path, "[local]\nnetwork = 'auto'\nvirtchd = 'auto'").config.local
    assert (local.network, local.virtchd) == ("auto", "auto")
    for wrong in ("10.9.8.7/24", "8.8.8.0/24", "10.9.8.0/30", "10.0.0.0/8", "here"):
        (told,) = problems(tmp_path, f"[local]\nnetwork = '{wrong}'")
        assert told.startswith(f"config.toml:2: local.network: found '{wrong}'")


def test_a_host_may_come_from_the_environment(tmp_path: Path) -> None:
    loaded = read(tmp_path, "", SWARM_TUI_HOSTS_MY_LAB_URI="qemu:///session")
    assert [host.name for host in loaded.config.hosts.values()] == ["my-lab"]


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        """
        [ui]
        veiw = "table"
        theme = 3
        [snapshots]
        keep = 2000
        folder = "relative"
        [hosts.lab]
        identity = "~/k"
        [loca]
        agents = 1
        [local]
        agents = true
        accel = "kmv"
        [supervisor]
        poll_s = 0.1
        """,
        SWARM_TUI_LOCAL_AGNETS="3",
    )
    assert told == [
        "config.toml:3: ui.veiw: unknown key; did you mean 'view'?; there are: "
        "ascii, notify, notify_about, notify_command, theme, themes, view",
        "config.toml:4: ui.theme: found 3; allowed: letters, digits, '_' and '-', at most 32, "
        "first a letter or digit",
        "config.toml:6: snapshots.keep: found 2000; allowed: a whole number from 0 to 1000",
        "config.toml:7: snapshots.folder: found 'relative'; allowed: an absolute path, or one "
        "that begins with ~/",
        "config.toml:9: hosts.lab.uri: missing; a host needs one",
        "config.toml:10: loca: unknown key; did you mean 'local'?; there are: "
        "hosts, local, logs, paths, review, snapshots, store, supervisor, ui",
        "config.toml:13: local.agents: found true; allowed: a whole number from 1 to 200",
        "config.toml:14: local.accel: found 'kmv'; allowed: auto, kvm or tcg; did you mean 'kvm'?",
        "config.toml:16: supervisor.poll_s: found 0.1; allowed: seconds from 0.2 to 60",
        "SWARM_TUI_LOCAL_AGNETS: local.agnets: unknown key; did you mean 'agents'?; there are: "
        "accel, agents, driver, memory_mib, network, virtchd",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[ui]\ntheme = \n", "config.toml:2:9: not TOML: Invalid value (at line 2, column 9)"),
        ("[ui]\n[local", "config.toml:2: not TOML"),
        ("ui = 3", "config.toml:1: ui: found 3; allowed: a table"),
        ("[[ui]]", "config.toml:1: ui: found a list; allowed: a table"),
        ("[ui.theme]\nx = 1", "config.toml:1: ui.theme: found a table; allowed: letters"),
        ("hosts = 3", "config.toml:1: hosts: found 3; allowed: a table"),
        ("[hosts]\nlab = 'uri'", "config.toml:2: hosts.lab: found 'uri'; allowed: a table"),
        ("[hosts.lab]", "config.toml:1: hosts.lab: its uri is missing"),
        ("[hosts.'my lab']\nuri = 'a:b'", "config.toml:2: hosts.my lab: found 'my lab'"),
        ("[hosts.a]\nurl = 'x'\nuri = 'a:b'", "config.toml:2: hosts.a.url: unknown key"),
        ("[hosts.a]\nuri = ''", "config.toml:2: hosts.a.uri: found ''"),
        ("[hosts.a]\nuri = 'a:b'\n[hosts.c]\nuri = 'a:b'", "not that of hosts.a again"),
        ("[local]\nagents = 1.0", "config.toml:2: local.agents: found 1.0"),
        ("[local]\nagents = '3'", "config.toml:2: local.agents: found '3'"),
        ("[supervisor]\npoll_s = nan", "config.toml:2: supervisor.poll_s: found nan"),
        ("[supervisor]\npoll_s = inf", "config.toml:2: supervisor.poll_s: found inf"),
        ("[ui]\ntheme = '../x'", "config.toml:2: ui.theme: found '../x'"),
        ('[paths]\ndata = "/a\\u0000b"', "config.toml:2: paths.data: found '/a"),
        ("[paths]\ndata = '~nobody-has-this-name/x'", "there is no such home folder"),
    ],
)
def test_each_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    lines = problems(tmp_path, text)
    assert any(told in line for line in lines), lines


@pytest.mark.parametrize(
    "query",
    [
        "no_verify=1",
        "no_verify=0",
        "No_Verify=1",
        "no%5fverify=1",
        "x=1&no_verify=1",
        "x=1;no_verify=1",
        "no_verify",
        "known_hosts_verify=ignore",
        "known_hosts_verify=auto",
    ],
)
def test_a_uri_that_switches_off_the_check_of_the_host_is_refused(
    tmp_path: Path, query: str
) -> None:
    told = problems(tmp_path, f"[hosts.a]\nuri = 'qemu+ssh://lab/system?{query}'")
    assert "switches off the check that it is the right host" in told[0]


def test_a_password_in_a_uri_is_refused(tmp_path: Path) -> None:
    assert "use keys" in problems(tmp_path, "[hosts.a]\nuri = 'qemu+ssh://me:pw@lab/system'")[0]


def test_what_a_file_holds_cannot_forge_lines_or_escape(tmp_path: Path) -> None:
    told = problems(tmp_path, '[ui]\ntheme = "\\u001b[31m\\n/etc/passwd:1: forged"')
    assert len(told) == 1
    assert "\x1b" not in told[0]


def test_a_file_that_is_not_text_or_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    environ = {"SWARM_TUI_HOME": str(tmp_path), "SWARM_TUI_CONFIG": str(file)}
    with pytest.raises(ConfigError, match="there is no such file"):
        load(environ)
    file.write_bytes(b"[ui]\n# \xff\n")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 7"):
        load(environ)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(environ)


def test_unknown_overrides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"command line: ui\.them: unknown key; did you mean 'theme'"
    ):
        load({"SWARM_TUI_HOME": str(tmp_path)}, {"ui.them": "x"})


def test_rows_name_every_value_and_go_into_json(tmp_path: Path) -> None:
    loaded = read(tmp_path, "[hosts.lab]\nuri = 'qemu:///system'\n[ui]\nview = 'table'\n")
    listed = rows(loaded)
    assert {row.key for row in listed} == set(loaded.sources) - {
        "hosts.lab.identity",
        "hosts.lab.repository",
        "hosts.lab.snapshots",
        "hosts.lab.guest_identity",
    }
    assert json.loads(json.dumps([asdict(row) for row in listed]))[0] == {
        "key": "hosts.lab.uri",
        "value": "qemu:///system",
        "source": f"{tmp_path}/config.toml:2",
    }
    view = next(line for line in render_config(listed).splitlines() if line.startswith("ui.view "))
    assert view.split() == ["ui.view", "table", f"{tmp_path}/config.toml:4"]


@pytest.mark.parametrize("path", ["~/snapshots", "snapshots", ""])
def test_a_path_on_another_machine_is_absolute(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="an absolute path on the host"):
        read(tmp_path, f"[hosts.lab]\nuri = 'ch+ssh://lab/system'\nsnapshots = '{path}'\n")


def test_a_host_is_set_by_variables_of_many_words(tmp_path: Path) -> None:
    loaded = read(
        tmp_path,
        "",
        SWARM_TUI_HOSTS_MY_LAB_URI="ch+ssh://lab/system",
        SWARM_TUI_HOSTS_MY_LAB_GUEST_IDENTITY="/keys/guests",
    )
    assert loaded.config.hosts[HostName("my-lab")].guest_identity == Path("/keys/guests")


def test_other_folders_follow_from_the_configured_ones(tmp_path: Path) -> None:
    loaded = read(tmp_path, "[paths]\ndata = '/srv/agents'\n")
    assert loaded.paths.data == Path("/srv/agents")
    assert loaded.config.snapshots.folder == Path("/srv/agents/snapshots")
    assert loaded.paths.state == tmp_path / "state"


# Folders


def test_folders_follow_xdg_for_a_user_and_lie_in_var_for_root() -> None:
    environ = {"HOME": "/home/ada", "XDG_CACHE_HOME": "/big", "XDG_STATE_HOME": "relative/ignored"}
    user = locate(environ, uid=1000)
    assert [str(folder) for folder in (user.config, user.data, user.state, user.cache)] == [
        "/home/ada/.config/swarm-tui",
        "/home/ada/.local/share/swarm-tui",
        "/home/ada/.local/state/swarm-tui",
        "/big/swarm-tui",
    ]
    root = locate({**environ, "XDG_DATA_HOME": "/root/x"}, uid=0)
    assert (str(root.data), str(root.cache)) == ("/var/lib/swarm-tui", "/var/cache/swarm-tui")


def test_private_folders_are_ours_alone_and_others_can_be_passed(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        paths = locate({"SWARM_TUI_HOME": str(tmp_path)})
        paths.make()
    finally:
        os.umask(before)
    modes = {
        folder.relative_to(tmp_path).as_posix(): folder.stat().st_mode & 0o777
        for folder in (paths.config, paths.state, paths.data, paths.cache)
    }
    assert modes == {
        "config": 0o700,
        "state": 0o700,
        "data": 0o711,
        "cache": 0o711,
    }


def test_a_folder_that_others_may_write_is_closed_to_them(tmp_path: Path) -> None:
    for folder, make, mode in (
        (tmp_path / "a", make_private, 0o700),
        (tmp_path / "b", make_traversable, 0o755),
    ):
        folder.mkdir()
        folder.chmod(0o777)
        make(folder)
        assert folder.stat().st_mode & 0o777 == mode


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SetupError, match="state: File exists"):
        locate({"SWARM_TUI_HOME": str(tmp_path)}).make()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("reviewer = 'ann@example.org'", "ann@example.org"),
        ("key = 'agent'", "agent"),
        ("key = '/keys/id'", Path("/keys/id")),
        ("repository = '/src/project'", Path("/src/project")),
        ("pack_mib = 8", 8),
    ],
)
def test_what_a_review_needs_is_configured(tmp_path: Path, text: str, value: object) -> None:
    review = read(tmp_path, f"[review]\n{text}\n").config.review
    assert getattr(review, text.split(" ")[0]) == value


@pytest.mark.parametrize("text", ["reviewer = 'ann, bob'", "key = 'id'", "repository = 'src'"])
def test_a_reviewer_is_one_name_and_a_key_an_absolute_path(tmp_path: Path, text: str) -> None:
    assert text.split(" ")[0] in problems(tmp_path, f"[review]\n{text}\n")[0]


def test_a_team_names_its_store_in_one_line(tmp_path: Path) -> None:
    assert read(tmp_path, "").config.store.url == f"sqlite://{tmp_path}/state/store.db"
    for url in ("postgresql://pat@lab/swarm?sslmode=verify-full", "sqlite:///srv/my swarm.db"):
        assert read(tmp_path, f'[store]\nurl = "{url}"').config.store.url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://pat:secret@lab/swarm", "a password does not belong in a URL"),
        ("postgresql://lab/swarm?password=secret", "a password does not belong in a URL"),
        ("mysql://lab/swarm", "allowed: sqlite:///FILE or postgresql://"),
        ("sqlite://relative.db", "allowed: sqlite:///FILE or postgresql://"),
    ],
)
def test_a_store_is_refused_with_its_reason(tmp_path: Path, url: str, why: str) -> None:
    [told] = problems(tmp_path, f'[store]\nurl = "{url}"')
    assert why in told
