"""Our element in a domain definition: written by us, read back from whoever keeps it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from swarm_tui.errors import UsageError
from swarm_tui.label import LABELS, Label, make_labels
from swarm_tui.model import Address, Tag
from swarm_tui.tag import parse_tag, render_tag
from swarm_tui.text import literal, sanitize

ADDRESS = Address(
    host="127.0.0.1",
    port=22101,
    host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+/x= swarm",
    identity=Path("/var/lib/swarm-tui/keys/agent 1"),
    user="dev",
    workspace="/workspace",
)
TAG = Tag(
    task=literal('fix <add> & "sub" in größer.py'),
    owner=literal("ada@example.org"),
    created=1700000000.125,
    base="0123456789abcdef0123456789abcdef01234567",
    address=ADDRESS,
    labels=make_labels(["team=web & <shop>", "urgent"]),
)
SHELL = """
<domain type='qemu'><name>agent-01</name>
  <metadata><other:thing xmlns:other='urn:other'/>{tag}</metadata>
</domain>"""


def reread(tag: str) -> Tag | None:
    return parse_tag(ET.fromstring(SHELL.format(tag=tag)))


def tampered(**attributes: str) -> Tag:
    """What is read when somebody changed attributes of the element or of its address."""
    element = ET.fromstring(render_tag(TAG))
    for part in (element, element[0]):
        for name, value in attributes.items():
            if name.replace("_", "-") in part.attrib:
                part.set(name.replace("_", "-"), value)
    tag = reread(ET.tostring(element, encoding="unicode"))
    assert tag
    return tag


@pytest.mark.parametrize(
    "tag", [TAG, Tag(), replace(TAG, address=None), Tag(owner=TAG.owner), Tag(labels=TAG.labels)]
)
def test_what_is_written_is_read_back(tag: Tag) -> None:
    assert reread(render_tag(tag)) == tag


def test_a_task_of_any_text_survives() -> None:
    for text in ("]]>", "<!--", "&amp;", "'\"", "\x1b[31m\n\t", "✓ \uffff \U0001f600", "a" * 4000):
        tag = Tag(task=sanitize(text))
        assert reread(render_tag(tag)) == tag


def test_a_vm_without_our_element_is_none_of_ours() -> None:
    assert reread("") is None
    assert reread("<agent task='x'/>") is None
    assert reread("<swarm:agent xmlns:swarm='urn:other'/>") is None
    assert parse_tag(ET.fromstring("<domain/>")) is None


def test_an_empty_element_is_an_agent_of_which_nothing_is_known() -> None:
    assert reread("<agent xmlns='urn:swarm-tui:1'/>") == Tag()
    assert reread("<agent xmlns='urn:swarm-tui:1'><ssh/></agent>") == Tag()


@pytest.mark.parametrize(
    "created", ["", "yesterday", "nan", "inf", "-inf", "1e999", "1e300", "-5", "9" * 5000]
)
def test_a_time_that_is_none_is_unknown(created: str) -> None:
    tag = tampered(created=created)
    assert tag.created is None
    assert tag.task == TAG.task


@pytest.mark.parametrize("base", ["", "HEAD", "--upload-pack=x", "012345", "g" * 40, "0" * 41])
def test_a_base_that_is_no_commit_is_unknown(base: str) -> None:
    assert tampered(base=base).base == ""


@pytest.mark.parametrize(
    "attributes",
    [
        {"host": ""},
        {"host": "-oProxyCommand=id"},
        {"host": "a b"},
        {"port": ""},
        {"port": "0"},
        {"port": "65536"},
        {"port": "22x"},
        {"port": "-22"},
        {"port": "²²"},
        {"port": "9" * 5000},
        {"host_key": ""},
        {"host_key": "AAAA"},
        {"host_key": "ssh-ed25519 AAAA\n* ssh-ed25519 BBBB"},
        {"identity": ""},
        {"identity": "relative/key"},
        {"user": ""},
        {"user": "-l root"},
        {"user": "a;reboot"},
        {"workspace": "../.."},
        {"workspace": "/w\nreboot"},
    ],
)
def test_an_address_that_is_not_wholly_sound_is_none(attributes: dict[str, str]) -> None:
    tag = tampered(**attributes)
    assert tag.address is None
    assert tag.task == TAG.task


def test_hostile_text_in_a_tag_is_made_safe() -> None:
    tag = tampered(task="x\u202e", owner="a\nb")
    assert (tag.task, tag.owner) == ("x\ufffd", "a␊b")


@pytest.mark.parametrize(
    "text", ["", "=web", "two words", "-x", "a" * 41, "k=\x1b[31m", "k=" + "v" * 81]
)
def test_what_cannot_be_a_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        make_labels([text])


def test_a_label_is_given_once_and_there_are_not_too_many() -> None:
    with pytest.raises(UsageError, match="given twice"):
        make_labels(["team=a", "team=b"])
    with pytest.raises(UsageError, match="at most"):
        make_labels([f"l{number}" for number in range(LABELS + 1)])


def test_labels_of_a_hostile_host_are_bounded_and_safe() -> None:
    many = "".join(f"<label key='k{number:02}' value='x'/>" for number in range(100))
    odd = "<label/><label key='a b'/><label key='v' value='&#x202e;{}'/>".format("v" * 500)
    tag = reread(f"<agent xmlns='urn:swarm-tui:1'>{odd}{many}</agent>")
    assert tag
    assert len(tag.labels) == LABELS
    assert tag.labels[-1].key == "v"
    assert tag.labels[-1].value.startswith("\ufffdvvv")
    assert len(tag.labels[-1].value) <= 80
    assert Label(literal("k00"), literal("x")) in tag.labels
