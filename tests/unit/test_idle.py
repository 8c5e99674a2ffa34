"""What goes with an image: found by its definition, out of sight first, back where it stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm_tui.local.idle import find_idle, hidden_idle, tell_idle


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return tmp_path / "cache/oci/images/0123"


@pytest.fixture
def swarm(tmp_path: Path, image: Path) -> Path:
    """Two templates, one of the image; a pool of it; and one of each that was cut off."""
    swarm = tmp_path / "data/local"
    make(swarm / "templates/of-it", image)
    make(swarm / "templates/of-another", image.with_name("4567"))
    make(swarm / "templates/cut", image, is_whole=False)
    make(swarm / "pools/web/key/stem", image)
    make(swarm / "pools/web/key/ready", image)
    make(swarm / "pools/web/key/.making", image, is_whole=False)
    make(swarm / "pools/cut/key/stem", image, is_whole=False)
    return swarm


def make(folder: Path, image: Path, *, is_whole: bool = True) -> None:
    folder.mkdir(parents=True)
    (folder / "definition.xml").write_text(f"<kernel>{image}/vmlinuz</kernel>")
    if is_whole:
        (folder / "template.json").write_text("{}")


def test_what_is_of_the_image_and_whole_is_found(swarm: Path, image: Path) -> None:
    found = find_idle([swarm, swarm.with_name("empty")], image)
    assert [tell_idle(folder) for folder in found] == ["pool web", "template of-it"]


def test_it_is_out_of_sight_and_then_gone(swarm: Path, image: Path) -> None:
    told: list[str] = []
    with hidden_idle([swarm], image, told.append) as remove:
        assert not find_idle([swarm], image)
        assert not (swarm / "templates/of-it").exists()
        remove()
    assert not list(swarm.glob("**/.of-it"))
    assert not list(swarm.glob("pools/web/key"))
    assert (swarm / "templates/of-another").exists()
    assert (swarm / "templates/cut").exists(), "a VM of it may be left"
    assert sorted(line.partition(" went")[0] for line in told) == ["pool web", "template of-it"]


def test_where_the_image_stays_it_stays(swarm: Path, image: Path) -> None:
    with pytest.raises(RuntimeError), hidden_idle([swarm], image, print):
        raise RuntimeError
    assert len(find_idle([swarm], image)) == 2
