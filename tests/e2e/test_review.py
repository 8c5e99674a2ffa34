"""Reviews on a real VM, from the screen and the command line: taken, sent back, landed, proven."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import LIVE, Swarm, wait_until
from .terminal import Terminal

pytestmark = pytest.mark.vm
ASK_S = 120.0


@pytest.fixture(scope="module")
def worker(swarm: Swarm) -> Iterator[str]:
    """An agent in a hurry, with something done."""
    name = str(swarm.json("spawn")["agents"][0]["name"])
    swarm.set_pace(name, 0)
    wait_until(lambda: "committed" in swarm.run("logs", name).stdout, "it commits", ASK_S)
    yield name
    ended = swarm.run("kill", name, "--yes")
    assert ended.returncode == 0, ended.stderr


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def project(swarm: Swarm) -> Path:
    """The owner's repository."""
    return swarm.home / "data/local/project.git"


def paths(review: dict[str, Any]) -> set[str]:
    return {file["path"] for file in review["files"]}


def open_review(screen: Terminal, number: int) -> None:
    """Wait until the chosen agent asks, and open its review."""
    screen.wait_for("┃ asking", ASK_S)

    def is_begun() -> bool:
        # A key is ignored for a moment after the list moved, as it does when somebody asks.
        screen.press("r")
        text = screen.screen()
        return "review: " in text or "about this review" in text

    wait_until(is_begun, "the review begins")
    screen.wait_for("about this review", ASK_S)
    screen.wait_for(f"review {number} ")


def confirm(screen: Terminal, key: str, question: str, answer: str) -> None:
    """Give a verdict: the answer is ignored for a moment, so it is pressed until it is gone."""
    screen.press(key)
    screen.wait_for(question)

    def is_gone() -> bool:
        screen.press(answer)
        return question not in screen.screen()

    wait_until(is_gone, f"{question} is answered")


def test_a_person_reviews_sends_back_and_approves(swarm: Swarm, worker: str) -> None:
    before = swarm.counter(worker)
    number = 1 + max((int(path.name) for path in reviews(swarm, worker)), default=0)
    with Terminal(swarm.program, environ=swarm.environ, columns=170, lines=45) as screen:
        screen.wait_for(worker)
        screen.press("/")
        screen.type(worker)
        screen.press("Enter")
        # Closed, the filter stands above and no more below; a key before that is typed into it.
        screen.wait_for(lambda text: "1 shown" in text and text.count(worker) == 2)
        open_review(screen, number)
        screen.press("J")
        screen.wait_for("change 1/")
        screen.press("C")
        screen.wait_for("ctrl+s")
        screen.type("Is this tested?")
        screen.press("C-s")
        screen.wait_for("1 comment")
        confirm(screen, "s", f"Send back {worker}?", "C-s")

        # The agent reads it, changes the code, and asks again.
        screen.wait_for("┃ running", ASK_S)
        wait_until(lambda: "Is this tested?" in heard(swarm, worker), "it got the comment")
        open_review(screen, number + 1)
        screen.press("i")
        screen.wait_for("since")
        screen.press("i")
        for _ in range(20):
            screen.press("Space")
        confirm(screen, "a", f"Approve {worker}?", "y")
        landed = f"swarm/{worker}/{number + 1}"
        wait_until(lambda: landed in git(project(swarm), "branch"), "the branch is there", ASK_S)
        screen.wait_for("┃ running", ASK_S)
    assert swarm.json("verify", landed, "--repository", str(project(swarm)))["ok"]
    assert swarm.counter(worker) > before


def reviews(swarm: Swarm, worker: str) -> list[Path]:
    folder = swarm.home / "state/reviews" / str(swarm.agent(worker)["id"]) / "reviews"
    return list(folder.iterdir()) if folder.exists() else []


def heard(swarm: Swarm, worker: str) -> str:
    """All messages that the agent got."""
    read = "cat /run/swarm/inbox/*.json /run/swarm/inbox/read/*.json 2>/dev/null"
    return swarm.run("shell", worker, "--user", "root", "--", read).stdout


def test_from_the_work_to_a_branch_that_proves_itself(swarm: Swarm, worker: str) -> None:
    said = "cd /workspace && echo 'by hand' >notes.txt"
    assert swarm.run("shell", worker, "--", said).returncode == 0
    before = swarm.counter(worker)

    review = swarm.json("review", worker)
    assert swarm.agent(worker)["state"] == "saved"
    assert not swarm.vmm_processes(worker), "its RAM is not free"
    assert "notes.txt" in paths(review), "work is left out"
    again = swarm.json("review", worker)
    assert again["review"] == review["review"], "an open review was taken anew"
    patch = subprocess.run(
        [*swarm.program, "review", worker, "--patch"],
        env=swarm.environ,
        capture_output=True,
        check=True,
    ).stdout
    assert review["digest"] == f"sha256:{hashlib.sha256(patch).hexdigest()}"

    wrong = swarm.run("approve", worker, "--digest", f"sha256:{'0' * 64}")
    assert wrong.returncode == 2, "another content than what is open was approved"
    agreed = swarm.run("approve", worker, "--digest", review["digest"], "--flags-seen")
    assert agreed.returncode == 0, agreed.stderr
    branch = f"swarm/{worker}/{review['review']}"
    assert git(project(swarm), "rev-parse", branch) == review["head"]
    assert git(project(swarm), "show", f"{branch}:notes.txt") == "by hand"
    assert swarm.counter(worker) >= before
    prove(swarm, branch, review)


def prove(swarm: Swarm, branch: str, review: dict[str, Any]) -> None:
    """Our own program and OpenSSH's agree, and neither accepts what was tampered with."""
    repository = ("--repository", str(project(swarm)))
    proof = swarm.json("verify", branch, *repository)
    assert (proof["ok"], proof["head"]) == (True, review["head"])
    beside = f"refs/swarm/verdicts/{branch}"
    verdict = git(project(swarm), "show", f"{beside}:verdict.json") + "\n"
    signature = swarm.home / "verdict.sig"
    signature.write_text(git(project(swarm), "show", f"{beside}:verdict.json.sig") + "\n")
    command = ["ssh-keygen", "-Y", "verify", "-n", "swarm-verdict", "-I", proof["reviewer"]]
    command += ["-f", str(swarm.home / "config/allowed_signers"), "-s", str(signature)]
    openssh = subprocess.run(command, input=verdict, capture_output=True, text=True, check=False)
    assert openssh.returncode == 0, openssh.stderr

    git(project(swarm), "update-ref", f"refs/heads/{branch}", review["base"])
    moved = swarm.run("verify", branch, *repository)
    assert moved.returncode == 13
    assert "not the one that was approved" in moved.stderr
    unknown = swarm.run("verify", "swarm/nobody/1", *repository)
    assert unknown.returncode == 3


def cut(swarm: Swarm, step: str, *arguments: str) -> None:
    """Run a command and kill it (SIGKILL) when it tells that it begins this step."""
    process = subprocess.Popen(
        [*swarm.program, *arguments],
        env=swarm.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    with process:
        for line in process.stderr:
            if step in line:
                process.send_signal(signal.SIGKILL)
                break
        else:
            raise AssertionError(f"it never came to: {step}")


def test_a_supervisor_that_is_killed_loses_neither_review_nor_verdict(
    swarm: Swarm, worker: str
) -> None:
    before = swarm.counter(worker)
    # Every other step is cut in the unit tests, on file-backed VMs.
    cut(swarm, "saving memory", "review", worker)
    review = swarm.json("review", worker)
    assert swarm.agent(worker)["state"] == "saved"
    approval = ("approve", worker, "--digest", review["digest"], "--flags-seen")
    cut(swarm, "restoring memory", *approval)
    wait_until(lambda: swarm.agent(worker)["state"] in ("saved", "frozen"), "it is found again")
    finished = swarm.run("resume", worker)
    assert finished.returncode == 0, finished.stderr
    branch = f"swarm/{worker}/{review['review']}"
    assert git(project(swarm), "rev-parse", branch) == review["head"], "the verdict was lost"
    assert swarm.agent(worker)["state"] in LIVE
    assert swarm.counter(worker) >= before
