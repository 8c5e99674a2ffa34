"""The guest's scripts around an agent's program, by this machine's own shells and awks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from swarm_tui.errors import UsageError
from swarm_tui.event import parse_event
from swarm_tui.local import guest
from swarm_tui.local.guest import Program, render_program
from swarm_tui.model import EventKind

RECORD = Path(guest.__file__).parent / "root/usr/lib/swarm/record"
AWKS = [name for name in ("mawk", "gawk", "busybox", "original-awk") if shutil.which(name)]


@pytest.fixture(params=AWKS)
def awk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with this awk in it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "awk").symlink_to(str(shutil.which(request.param)))
    return folder


def record(awk: Path, output: bytes, status: str) -> list[Mapping[str, str]]:
    run = awk.parent
    (run / "status").write_text(status)
    (run / "events.jsonl").write_text("")
    subprocess.run(
        ["sh", str(RECORD), str(run / "status")],
        input=output,
        check=True,
        env={"PATH": f"{awk}:/usr/bin:/bin", "SWARM_RUN": str(run)},
    )
    lines = (run / "events.jsonl").read_bytes().splitlines()
    assert all(len(line) < 4096 for line in lines)
    assert all(parse_event(line).kind is not EventKind.OTHER for line in lines)
    return [json.loads(line.decode("utf-8", "replace")) for line in lines]


def test_output_becomes_log_lines_whatever_is_in_it(awk: Path) -> None:
    hostile = b'"quoted" \\back\\slash\ttab \x1b[2J\x07 \xff\xfe \xc3\xa9\n'
    output = b"plain\n\n" + hostile + b"10 %\r50 %\r100 %\r\n" + b"x" * 9000 + b"\nno end"
    events = record(awk, output, "0\n")
    texts = [event["text"] for event in events]
    assert [event["kind"] for event in events] == ["log"] * 5 + ["done"]
    assert texts[0] == "plain"
    assert texts[1].startswith('"quoted" \\back\\slash\ttab \x1b[2J\x07 ')
    assert texts[1].endswith(" é")
    assert texts[2] == "100 %"
    assert texts[3].startswith("xxx")
    assert texts[3].endswith("…")
    assert texts[4] == texts[5] == "no end"


@pytest.mark.parametrize(("status", "told"), [("3\n", "3"), ("137\n", "137"), ("", "unknown")])
def test_a_failure_tells_its_status_and_the_last_words(awk: Path, status: str, told: str) -> None:
    output = b"one\ntwo\nthree\nfour\n"
    assert record(awk, output, status)[-1]["kind"] == "failed"
    assert record(awk, output, status)[-1]["text"] == f"exit status {told}: two; three; four"
    assert record(awk, b"", status)[-1]["text"] == f"exit status {told}"


def run_program(program: Program, folder: Path) -> str:
    """What the keeper has the agent's shell do, with the guest's folders here."""
    folder.mkdir(exist_ok=True)
    for name, content in (("program", program.script), ("environment", program.environment)):
        text = content.decode().replace("/run/swarm", str(folder))
        (folder / name).write_text(text)
    script = f". {folder}/environment; . {folder}/program"
    return subprocess.check_output(["sh", "-c", script], text=True)


def test_words_and_values_arrive_as_they_are(tmp_path: Path) -> None:
    words = ("printf", "%s|", "a b", "it's", "$HOME `x`", "{task}", "-x={task}", "\n", "")
    task, value = 'Say "it\'s" {task}\n$(rm -rf /)', "line\n'two' $X \\ é"
    program = render_program(words, task, {"KEY": value})
    expected = ["a b", "it's", "$HOME `x`", task, f"-x={task}", "\n", "", ""]
    assert run_program(program, tmp_path / "run").split("|") == expected
    shown = render_program(("sh", "-c", 'printf %s "$KEY"'), "", {"KEY": value})
    assert run_program(shown, tmp_path / "run") == value
    assert "two" not in repr(program)


def test_without_its_environment_a_program_does_not_begin(tmp_path: Path) -> None:
    program = render_program(("echo", "began"), "", {"KEY": "value"})
    script = program.script.decode().replace("/run/swarm", str(tmp_path))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (126, "")
    assert "reboot" in done.stderr


@pytest.mark.parametrize(
    ("words", "environment"),
    [(("true",), {"A-B": "1"}), (("true",), {"A": "\0"}), (("\0",), {}), ((), {"A;B": ""})],
)
def test_what_no_program_can_be_given_is_refused(
    words: tuple[str, ...], environment: dict[str, str]
) -> None:
    with pytest.raises(UsageError) as raised:
        render_program(words, "", environment)
    assert "\0" not in str(raised.value)


def test_without_a_command_the_image_has_its_own() -> None:
    assert render_program((), "task", {}) == Program()
    own = render_program((), "task", {"KEY": "value"})
    assert own.script.endswith(b"exec /usr/lib/swarm/agent\n")
