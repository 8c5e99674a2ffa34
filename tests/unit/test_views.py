"""A person's views in their file: kept, renamed, removed; a damaged file is told and left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.cli import main
from swarm_tui.errors import ConfigError, NotFound, UsageError
from swarm_tui.views import BUILT_IN, Group, Look, Order, View, find, read, remove, rename, save

LAB = View(
    "the lab: old",
    'host:lab task:"log in"',
    Order.AGE,
    is_reversed=True,
    group=Group.LABEL,
    label="team",
    look=Look.TABLE,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config/views.toml"


def own(file: Path) -> list[View]:
    return [view for view in read(file) if not view.is_built_in]


def test_without_a_file_there_are_the_built_in_ones(file: Path) -> None:
    assert list(read(file)) == list(BUILT_IN)
    assert not file.exists()


def test_what_is_kept_is_read_back(file: Path) -> None:
    save(file, LAB)
    save(file, View("plain"))
    assert own(file) == [LAB, View("plain")]
    assert find(file, "THE LAB: old") == LAB


def test_keeping_it_again_replaces_it_and_leaves_the_rest_as_written(file: Path) -> None:
    save(file, LAB)
    file.write_text("# mine\n" + file.read_text() + "\n# the core\n[views.core]\nfilter = 'x'\n")
    save(file, replace(LAB, name="The Lab: old", filter="host:lab"))
    assert [view.name for view in own(file)] == ["core", "The Lab: old"]
    assert "# mine\n" in file.read_text()
    assert "# the core\n[views.core]\nfilter = 'x'\n" in file.read_text()


def test_a_view_gets_another_name_and_goes(file: Path) -> None:
    save(file, LAB)
    rename(file, LAB.name, "lab")
    assert own(file) == [replace(LAB, name="lab")]
    remove(file, "lab")
    remove(file, "lab")
    assert own(file) == []


def test_a_name_is_not_taken_from_another_view(file: Path) -> None:
    save(file, LAB)
    save(file, View("b"))
    with pytest.raises(UsageError, match="already"):
        rename(file, "b", LAB.name)
    rename(file, "b", "B")
    assert [view.name for view in own(file)] == [LAB.name, "B"]


@pytest.mark.parametrize(
    "name", ["", " a", "a" * 41, 'a"b', "a\\b", "Everything", "a\x1bb", "mine"]
)
def test_what_cannot_be_a_name_is_refused(file: Path, name: str) -> None:
    with pytest.raises(UsageError):
        save(file, View(name))
    assert not file.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[views", "views.toml"),
        ("\x80", "views.toml"),
        ("[view.x]\n", "view is none of views"),
        ("views = 1\n", "views is no table"),
        ("[views.x]\nfilter = 'stat:x'\n", "There is no stat:"),
        ("[views.x]\nsort = 'size'\n", "views.x: 'size' is not a valid Order"),
        ("[views.x]\nreverse = 'yes'\n", "reverse: true or false"),
        ("[views.x]\ncolour = 'red'\n", "views.x.colour: unknown key"),
        ("[views.mine]\n", "is built in"),
    ],
)
def test_a_damaged_file_is_told_and_never_written(file: Path, text: str, told: str) -> None:
    file.parent.mkdir()
    raw = text.encode("latin-1")
    file.write_bytes(raw)
    for act in (
        lambda: read(file),
        lambda: save(file, LAB),
        lambda: rename(file, "x", "y"),
        lambda: remove(file, "x"),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert told in str(caught.value)
    assert file.read_bytes() == raw
    assert find(file, "waiting for me").filter == "is:waiting", "what is built in is there"


def test_an_unknown_view_ends_the_program_before_it_begins(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFound, match="There is no view"):
        find(file, "nowhere")
    assert main(["--view", "nowhere", "demo", "--simulated", "1"]) == 3
    assert "failed or lost" in capsys.readouterr().err
