"""The guest's helper and the example agent, in shells on this machine, where they are quick."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from swarm_tui.local import guest
from swarm_tui.local.image import Image

from .machine import ANSWER_S

ROOT = Path(guest.__file__).parent / "root"
HELPER = ROOT / "usr/bin/swarm"

HOSTILE = [
    "plain",
    "",
    " spaces  stay ",
    'quotes " \' and back\\slashes \\" \\\\ \\n',
    "newlines\nand\ttabs\r\nand a last one\n",
    "escape \x1b[31mred\x1b]52;c;AAAA\x07 \x01\x1f\x7f",
    "ünïcödé € 😀 \u202e\u200b\ufeff",
    "%s %d %% $(id) `id` ${HOME} $HOME ; | & * ? [a-z] ~",
    "-n -e --",
    '","kind":"done","text":"',
]


# The helper in every shell that it may meet


@pytest.fixture(scope="session")
def busybox(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest's own busybox, with the programs that the helper needs, as a folder for PATH."""
    folder = tmp_path_factory.mktemp("busybox")
    (deb,) = (image.folder.parent.parent / "debs").glob("busybox-static_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "deb")], check=True)
    (found,) = (
        path for path in folder.rglob("busybox") if path.is_file() and path.stat().st_mode & 1
    )
    for name in ("sh", "awk", "date", "mv", "sleep"):
        (folder / name).symlink_to(found)
    return folder


class Helper:
    """`swarm` run by one shell on a folder of its own."""

    def __init__(self, folder: Path, shell: str, path: str) -> None:
        self.folder = folder
        self.command = [shell, str(HELPER)]
        self.environment = {"SWARM_RUN": str(folder), "PATH": path, "LANG": "C.UTF-8"}
        (folder / "inbox/read").mkdir(parents=True)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )

    def events(self) -> Sequence[dict[str, Any]]:
        lines = (self.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
        assert all(line.endswith(b"\n") and len(line) < 4096 for line in lines)
        return [json.loads(line) for line in lines]

    def deliver(self, number: int, **members: str) -> None:
        text = json.dumps({"id": f"{number:04}", **members}, ensure_ascii=number % 2 == 0)
        (self.folder / f"inbox/{number:04}.json").write_text(text)


@pytest.fixture(params=["sh", "bash", "busybox"])
def helper(request: pytest.FixtureRequest, tmp_path: Path, busybox: Path) -> Helper:
    if request.param == "busybox":
        return Helper(tmp_path / "run", str(busybox / "sh"), str(busybox))
    shell = shutil.which(request.param)
    assert shell
    return Helper(tmp_path / "run", shell, "/usr/bin:/bin")


@pytest.mark.parametrize("kind", ["log", "status", "tool"])
def test_any_text_becomes_one_line_of_json(helper: Helper, kind: str) -> None:
    before = int(time.time()) - 1  # a shell may ask a coarser clock
    for text in HOSTILE:
        assert helper.run(kind, text).returncode == 0
    events = helper.events()
    assert [event["text"] for event in events] == HOSTILE
    assert {event["kind"] for event in events} == {kind}
    assert all(before <= event["ts"] <= time.time() for event in events)


@pytest.mark.parametrize("unit", ["x", "€", "\x01", '"', "a\n", "😀"])
def test_a_long_text_is_cut_at_a_character(helper: Helper, unit: str) -> None:
    helper.run("log", unit * 9000)
    text = helper.events()[0]["text"]
    assert text.endswith("…")
    assert text[:-1] == (unit * 9000)[: len(text) - 1]
    assert len(text) > 500


def test_usage_carries_model_and_tokens(helper: Helper) -> None:
    assert (
        helper.run("usage", "--model", 'the "big" one', "--in", "1200", "--out", "34").returncode
        == 0
    )
    (event,) = helper.events()
    assert event | {"ts": 0} == {
        "ts": 0,
        "kind": "usage",
        "text": "",
        "model": 'the "big" one',
        "tokens_in": 1200,
        "tokens_out": 34,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["usage", "--in", "-3"],
        ["usage", "--in", "1e9"],
        ["usage", "--in", "007"],
        ["usage", "--in"],
        ["usage", "--cost", "3"],
        ["ask", "money", "please"],
        ["ask", "review"],
        ["log"],
        ["shout", "hello"],
        [],
    ],
)
def test_what_makes_no_sense_is_refused(helper: Helper, arguments: list[str]) -> None:
    done = helper.run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("swarm: ")
    assert not (helper.folder / "events.jsonl").exists()


@pytest.mark.parametrize(("verdict", "status"), [("approve", 0), ("send-back", 10), ("reject", 20)])
def test_a_verdict_ends_the_wait(helper: Helper, verdict: str, status: int) -> None:
    helper.deliver(1, kind="message", text="not an answer")
    helper.deliver(2, kind="verdict", verdict=verdict, text='line 3: "kind": "message"\nno')
    done = helper.run("ask", "review", "is it good?")
    assert (done.returncode, done.stdout) == (status, 'line 3: "kind": "message"\nno\n')
    assert [event["kind"] for event in helper.events()] == ["ask", "status"]
    assert helper.events()[0]["text"] == "is it good?"
    assert {path.name for path in helper.folder.glob("inbox/*.json")} == {"0001.json"}
    assert {path.name for path in helper.folder.glob("inbox/read/*")} == {"0002.json"}


def test_a_message_answers_a_question(helper: Helper) -> None:
    helper.deliver(1, kind="message", text="blue")
    done = helper.run("ask", "question", "which colour?")
    assert (done.returncode, done.stdout) == (0, "blue\n")


def test_the_inbox_prints_any_text_once(helper: Helper) -> None:
    texts = [text for text in HOSTILE if "\r" not in text and "\a" not in text]
    for number, text in enumerate(texts):
        helper.deliver(number, kind="message", text=text)
    assert helper.run("inbox").stdout == "".join(f"{text}\n" for text in texts)
    assert helper.run("inbox").stdout == ""
    assert len(list(helper.folder.glob("inbox/read/*"))) == len(texts)


# The example agent, with its pauses cut short


class ExampleAgent:
    """The example agent on this machine, in a folder of its own, under a given host name."""

    def __init__(self, folder: Path, name: str, tasks: int) -> None:
        self.run_folder = folder / "run"
        self.workspace = folder / "workspace"
        scripts = folder / "scripts"
        for path in (self.run_folder / "inbox/read", self.workspace, scripts):
            path.mkdir(parents=True)
        for source in ("usr/lib/swarm/agent", "usr/bin/swarm"):
            path = scripts / Path(source).name
            path.write_bytes((ROOT / source).read_bytes())
            path.chmod(0o755)
        lines = (ROOT / "usr/lib/swarm/tasks").read_text().splitlines(keepends=True)
        (scripts / "tasks").write_text("".join(lines[:tasks]))
        for stand_in, content in (
            ("sleep", "exec /bin/sleep 0.01"),
            ("hostname", f"echo {name}"),
            ("heartbeat", "exit 0"),
        ):
            (scripts / stand_in).write_text(f"#!/bin/sh\n{content}\n")
            (scripts / stand_in).chmod(0o755)
        self.environment = {
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "SWARM_RUN": str(self.run_folder),
            "SWARM_WORKSPACE": str(self.workspace),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        (folder / "gitconfig").write_text(f"[user]\n\tname = {name}\n\temail = {name}@test\n")
        self.git("init", "-q", "--initial-branch=main")
        self.git("apply", "--index", "-p0", str(ROOT.parent / "workspace.patch"))
        self.git("commit", "-q", "-m", "The base")
        self.process = subprocess.Popen(
            [str(scripts / "agent")], env=self.environment, start_new_session=True
        )
        self.answers = 0

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.workspace), *arguments]
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def events(self) -> Sequence[dict[str, Any]]:
        lines = (self.run_folder / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def await_asking(self) -> str:
        """Wait until it asks, or is done; the base name of the commit it stands at."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                if self.events()[-1]["kind"] in ("ask", "done"):
                    return self.git("rev-parse", "HEAD")
            except (FileNotFoundError, IndexError, ValueError):
                pass  # nothing is written yet, or a line is being written
            assert time.monotonic() < deadline, "the agent never asks"
            time.sleep(0.02)

    def answer(self, verdict: str, text: str = "") -> str:
        """Give a verdict, and wait until it asks again."""
        self.answers += 1
        before = len(self.events())
        path = self.run_folder / f"inbox/{self.answers:04}.json"
        message = {"id": path.stem, "kind": "verdict", "verdict": verdict, "text": text}
        path.with_suffix(".new").write_text(json.dumps(message))
        path.with_suffix(".new").rename(path)
        deadline = time.monotonic() + ANSWER_S
        while len(self.events()) == before:
            assert time.monotonic() < deadline, "the agent does not hear"
            time.sleep(0.02)
        return self.await_asking()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ExampleAgent]:
    running = ExampleAgent(tmp_path, "agent-01", tasks=7)
    yield running
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()


def test_the_example_agent_works_for_real_and_obeys_verdicts(agent: ExampleAgent) -> None:
    base = agent.git("rev-list", "--max-parents=0", "HEAD")
    first = agent.await_asking()
    assert first != base
    assert agent.git("status", "--porcelain") == ""

    second = agent.answer("send-back", 'list it in the "README"')
    assert 'list it in the "README"' in agent.git("log", "--format=%B", f"{first}..{second}")

    third = agent.answer("approve")
    agent.git("merge-base", "--is-ancestor", second, third)
    assert third != second

    fourth = agent.answer("reject", "not like this")
    assert agent.git("merge-base", third, fourth) == second
    assert fourth != second

    events = agent.events()
    assert {"ask", "log", "status", "tool", "usage"} == {event["kind"] for event in events}
    reports = [event["text"] for event in events if event["kind"] == "log"]
    assert any("Error" in report or "1 failed" in report for report in reports)
    assert any(report.endswith(" passed, 0 failed") for report in reports)
    assert sum(event.get("tokens_in", 0) for event in events) > 10_000
    tests = [sys.executable, "-BS", str(agent.workspace / "tests/run.py")]
    subprocess.run(tests, check=True, capture_output=True)


def test_the_example_agent_comes_to_an_end(agent: ExampleAgent) -> None:
    agent.await_asking()
    while agent.process.poll() is None:
        agent.answer("approve")
        if agent.events()[-1]["kind"] == "done":
            agent.process.wait(ANSWER_S)
    assert agent.process.returncode == 0
    functions = agent.git("grep", "-h", "^def .*_to_.*-> float", "--", "measures")
    assert len(functions.splitlines()) == 4 + 7
    assert agent.git("status", "--porcelain") == ""
