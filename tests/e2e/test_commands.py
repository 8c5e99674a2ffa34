"""The command line on real VMs: what a script would rely on."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import DEADLINE_S, LIVE, Swarm, names, wait_until

pytestmark = pytest.mark.vm


def test_ls_shows_three_running_agents_that_answer(swarm: Swarm) -> None:
    agents = swarm.agents()
    assert len(agents) == 3
    assert {agent["state"] for agent in agents} <= LIVE
    keys = {agent["ssh"]["host_key"] for agent in agents}
    assert len(keys) == 3, "each agent has a host key of its own"
    for name in names(agents):
        assert swarm.counter(name) > 0


def test_pause_to_a_snapshot_frees_the_ram_and_resume_goes_on(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    assert swarm.vmm_processes(name)
    before = swarm.counter(name)

    swarm.json("pause", name)
    assert swarm.agent(name)["state"] == "saved"
    assert not swarm.vmm_processes(name)
    shown = swarm.json("show", name)
    assert shown["snapshots"][-1]["digests"].keys() >= {"memory", "disk-0", "definition.xml"}

    resumed = swarm.json("resume", name)
    assert resumed["agent"]["state"] in LIVE
    swarm.goes_on(name, before)


def test_a_quick_pause_keeps_the_ram_and_saves_nothing(swarm: Swarm) -> None:
    name = names(swarm.agents())[1]
    swarm.json("pause", name, "--quick")
    assert swarm.agent(name)["state"] == "paused"
    assert swarm.vmm_processes(name)
    assert swarm.json("show", name)["snapshots"] == []
    swarm.json("resume", name)
    assert swarm.agent(name)["state"] in LIVE


def test_a_verb_that_makes_no_sense_now_is_refused_with_the_reason(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    done = swarm.run("resume", name)
    assert done.returncode == 4
    assert "only a paused, saved or frozen agent can be resumed" in done.stderr


def test_shell_passes_on_streams_and_exit_code(swarm: Swarm) -> None:
    name = names(swarm.agents())[2]
    done = swarm.run("shell", name, "--", "cat; echo to-stderr >&2; exit 7", stdin="through\n")
    assert (done.returncode, done.stdout, done.stderr) == (7, "through\n", "to-stderr\n")


def test_logs_tell_what_the_agent_did(swarm: Swarm) -> None:
    name = names(swarm.agents())[2]
    said = swarm.run("shell", name, "--", "swarm log 'a mark for the test'")
    assert said.returncode == 0, said.stderr
    # It tells what came within a moment, and no more: a guest may be slow to answer.
    wait_until(lambda: "a mark for the test" in swarm.run("logs", name).stdout, "the line is told")

    def is_told_as_object() -> bool:
        events = json.loads(swarm.run("logs", name, "--json").stdout)
        return any(event["text"] == "a mark for the test" for event in events)

    wait_until(is_told_as_object, "the event is told")


def test_messages_are_read_in_their_order(swarm: Swarm, idle: str) -> None:
    sent = swarm.json("message", idle, "first", "things", "first")
    assert "first things first" in sent["done"]
    long = "zweitens: ü\n" + "x" * 60_000
    done = swarm.run("message", idle, "-", stdin=long)
    assert done.returncode == 0, done.stderr
    read = swarm.run("shell", idle, "--", "swarm inbox")
    assert read.stdout == f"first things first\n{long}\n"
    assert swarm.run("shell", idle, "--", "swarm inbox").stdout == "", "once"
    told = [(act["verb"], act["outcome"]) for act in swarm.json("show", idle)["acts"]]
    assert told.count(("message", "done")) == 2

    refused = swarm.run("message", idle, "-", stdin="y" * (64 << 10) + "y")
    assert refused.returncode == 2
    assert "too long" in refused.stderr
    swarm.json("pause", idle)
    assert swarm.run("message", idle, "hello").returncode == 4


def test_a_question_is_answered_by_a_message(swarm: Swarm, idle: str) -> None:
    ask = [*swarm.program, "shell", idle, "--", "swarm ask question 'which colour?'"]
    with subprocess.Popen(ask, env=swarm.environ, stdout=subprocess.PIPE, text=True) as asking:
        wait_until(
            lambda: "which colour?" in swarm.run("logs", idle).stdout, "the question is heard"
        )
        swarm.json("message", idle, "blue")
        answer, _ = asking.communicate(timeout=DEADLINE_S)
    assert (asking.returncode, answer) == (0, "blue\n")


def test_an_unknown_agent_has_its_own_exit_code(swarm: Swarm) -> None:
    done = swarm.run("show", "nobody")
    assert done.returncode == 3
    assert "No such agent" in done.stderr


def test_spawn_and_kill_leave_nothing(swarm: Swarm) -> None:
    made = swarm.json("spawn", "--task", "Count the stars")["agents"][0]
    assert made["task"] == "Count the stars"
    name = made["name"]
    assert swarm.counter(name) >= 0

    asked = swarm.run("kill", name)
    assert asked.returncode == 2, "nobody can be asked without a terminal"
    swarm.json("kill", name, "--yes")
    assert name not in names(swarm.agents())
    assert not swarm.vmm_processes(name)
    assert not list(swarm.home.rglob(f"*{name}*"))
    assert not list(swarm.home.rglob(f"*{made['id']}*"))


def test_every_act_is_on_the_audit_log_with_its_outcome(swarm: Swarm) -> None:
    name = names(swarm.agents())[0]
    swarm.json("pause", name, "--quick")
    swarm.json("resume", name)
    acts = swarm.json("show", name)["acts"]
    assert [(act["verb"], act["outcome"]) for act in acts[-2:]] == [
        ("pause", "done"),
        ("resume", "done"),
    ]
