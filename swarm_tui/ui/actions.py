"""Everything a person can do, in one table.

It feeds the key bindings, the footer, `?`, the command palette and the README's table of keys. The
id of a verb is its word everywhere else too: policy, audit and command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

from textual.binding import Binding, BindingType

from swarm_tui.command import Command, Kill, Pause, Resume
from swarm_tui.model import AgentId, Verb

Place = Literal["fleet", "agent", "review"]

FLEET: Final[tuple[Place, ...]] = ("fleet",)
AGENT: Final[tuple[Place, ...]] = ("agent",)
REVIEW: Final[tuple[Place, ...]] = ("review",)
BOTH: Final[tuple[Place, ...]] = ("fleet", "agent")
ALL: Final[tuple[Place, ...]] = ("fleet", "agent", "review")


class Section(StrEnum):
    """Headings of the help screen and the README."""

    VERBS = "Steer agents"
    REVIEW = "Review"
    MOVE = "Move"
    VIEW = "Look"
    LOG = "Read a log"
    APP = "The program"


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done, with its keys."""

    id: str
    keys: tuple[str, ...]
    """Textual's names; the first one is shown."""
    section: Section
    label: str
    """One or two words for the footer; empty: not in the footer."""
    help: str
    places: tuple[Place, ...] = BOTH
    verb: Verb | None = None
    """Policy is asked about this verb; a refusal greys the key and is told when it is pressed."""
    is_quick: bool = False
    acts_on_agent: bool = False
    """It acts on the agent under the cursor, or on those selected, so that it must not hit
    another one that has just come there."""
    command: Callable[[AgentId], Command] | None = None
    """Makes the supervisor's command; None: the screen itself does it."""
    told: str = ""
    """How the keys are written, where they are bound by the widget that moves."""

    @property
    def is_bound(self) -> bool:
        """Whether the keys are the screen's own."""
        return not self.told


ACTIONS: Final[tuple[Action, ...]] = (
    Action(
        "pause",
        ("p",),
        Section.VERBS,
        "pause",
        "Pause to a snapshot: memory and disk are saved, the RAM is freed",
        verb=Verb.PAUSE,
        acts_on_agent=True,
        command=Pause,
    ),
    Action(
        "quick-pause",
        ("P",),
        Section.VERBS,
        "",
        "Quick pause: only stop the vCPUs; nothing is saved, the RAM stays in use",
        verb=Verb.PAUSE,
        is_quick=True,
        acts_on_agent=True,
        command=lambda agent: Pause(agent, is_quick=True),
    ),
    Action(
        "resume",
        ("u",),
        Section.VERBS,
        "resume",
        "Resume from where it stood, whichever way it was paused",
        verb=Verb.RESUME,
        acts_on_agent=True,
        command=Resume,
    ),
    Action(
        "shell",
        ("x",),
        Section.VERBS,
        "shell",
        "Open a shell in the VM: in a new tmux window inside tmux, else in this terminal",
        verb=Verb.SHELL,
        acts_on_agent=True,
    ),
    Action(
        "logs",
        ("L", "l"),
        Section.VERBS,
        "logs",
        "The log alone on the screen (among tiles l moves right: there it is L)",
        verb=Verb.LOGS,
        acts_on_agent=True,
    ),
    Action(
        "kill",
        ("K",),
        Section.VERBS,
        "kill",
        "Kill: the VM, its disk and its snapshots go for good; asks first",
        verb=Verb.KILL,
        acts_on_agent=True,
        command=Kill,
    ),
    Action(
        "spawn",
        ("n",),
        Section.VERBS,
        "new",
        "Make a new agent",
        places=FLEET,
        verb=Verb.SPAWN,
    ),
    Action(
        "review",
        ("r",),
        Section.VERBS,
        "review",
        "Review its work: it stands still, saved, until your verdict",
        verb=Verb.REVIEW,
        acts_on_agent=True,
    ),
    Action(
        "message",
        ("m",),
        Section.VERBS,
        "",
        "Write to the agent's inbox",
        verb=Verb.MESSAGE,
        acts_on_agent=True,
    ),
    Action(
        "fork",
        ("f",),
        Section.VERBS,
        "",
        "Make a second agent that goes on from here",
        verb=Verb.FORK,
        acts_on_agent=True,
    ),
    Action(
        "approve",
        ("a",),
        Section.REVIEW,
        "approve",
        "Approve: the commit lands as a branch, signed if a key is configured; the agent goes on",
        REVIEW,
        verb=Verb.APPROVE,
    ),
    Action(
        "send-back",
        ("s",),
        Section.REVIEW,
        "send back",
        "Send back: the agent gets your comments and goes on",
        REVIEW,
        verb=Verb.SEND_BACK,
    ),
    Action(
        "reject",
        ("X",),
        Section.REVIEW,
        "reject",
        "Reject: the agent is told why, and goes on or is killed",
        REVIEW,
        verb=Verb.REJECT,
    ),
    Action(
        "comment",
        ("c",),
        Section.REVIEW,
        "comment",
        "Comment on the line or the selected lines, or change the comment there",
        REVIEW,
    ),
    Action(
        "comment-file",
        ("C",),
        Section.REVIEW,
        "",
        "Comment on the file, or on all: about this review",
        REVIEW,
    ),
    Action("drop-comment", ("D",), Section.REVIEW, "", "Remove the comment here; asks", REVIEW),
    Action(
        "viewed",
        ("space",),
        Section.REVIEW,
        "viewed",
        "Mark the file as viewed, and go to the next one that is not",
        REVIEW,
    ),
    Action(
        "next-flag",
        ("exclamation_mark",),
        Section.REVIEW,
        "flags",
        "To the next flag that has not been seen",
        REVIEW,
    ),
    Action(
        "since",
        ("i",),
        Section.REVIEW,
        "since",
        "Only what changed since the last review of this agent, or all of it",
        REVIEW,
    ),
    Action(
        "select-lines",
        ("V",),
        Section.REVIEW,
        "",
        "Select lines for a comment; also shift+arrows, shift+click",
        REVIEW,
    ),
    Action("side", ("o",), Section.REVIEW, "", "Side by side: comment on the other side", REVIEW),
    Action("open", ("enter",), Section.MOVE, "", "Open the agent", FLEET, acts_on_agent=True),
    Action("back", ("escape",), Section.MOVE, "", "Back; in the fleet: clear selection and filter"),
    Action(
        "leave",
        ("escape",),
        Section.MOVE,
        "",
        "Leave the review as it is: the agent stays saved, your comments are kept",
        REVIEW,
    ),
    Action("hunk", ("j", "k"), Section.MOVE, "", "Next, previous change", REVIEW, told="j k"),
    Action("next-file", ("J",), Section.MOVE, "", "Next file", REVIEW),
    Action("previous-file", ("K",), Section.MOVE, "", "Previous file", REVIEW),
    Action("line", ("down", "up"), Section.MOVE, "", "Move the line cursor", REVIEW, told="↓ ↑"),
    Action("shift", ("h", "l"), Section.MOVE, "", "Shift long lines", REVIEW, told="h l ← →"),
    Action(
        "press",
        ("enter",),
        Section.MOVE,
        "",
        "Show hidden lines, change a comment, follow a flag; among files: open",
        REVIEW,
    ),
    Action("next-waiting", ("w",), Section.MOVE, "waiting", "To the next agent that waits for you"),
    Action(
        "move",
        ("h", "j", "k", "l", "left", "down", "up", "right"),
        Section.MOVE,
        "",
        "Move the cursor; in a log: scroll",
        told="hjkl ←↓↑→",
    ),
    Action(
        "page",
        ("ctrl+u", "ctrl+d", "pageup", "pagedown"),
        Section.MOVE,
        "",
        "A page up or down",
        places=ALL,
        told="ctrl+u ctrl+d",
    ),
    Action(
        "ends",
        ("home", "end"),
        Section.MOVE,
        "",
        "First or last; in a log: end follows it",
        places=ALL,
        told="home end",
    ),
    Action(
        "filter",
        ("slash",),
        Section.VIEW,
        "filter",
        "Show only agents with these words in name, host, state, task or owner; !word: without",
        FLEET,
    ),
    Action(
        "select",
        ("space",),
        Section.VIEW,
        "",
        "Select for a verb on many; mouse: ctrl+click",
        FLEET,
        acts_on_agent=True,
    ),
    Action("select-all", ("a",), Section.VIEW, "", "Select all that are shown, or none", FLEET),
    Action("view", ("v",), Section.VIEW, "", "Tiles or table", FLEET),
    Action("sort", ("o",), Section.VIEW, "", "Sort by the next column", FLEET),
    Action("group", ("g",), Section.VIEW, "", "Group by host, by state, or not", FLEET),
    Action(
        "details",
        ("i",),
        Section.VIEW,
        "details",
        "All facts, with the source of each number",
        AGENT,
    ),
    Action(
        "console",
        ("c",),
        Section.VIEW,
        "console",
        "Serial console of the VM, read only; for when SSH is out of reach",
        AGENT,
    ),
    Action("files", ("b",), Section.VIEW, "files", "Show or hide the files", REVIEW),
    Action("pane", ("tab",), Section.VIEW, "", "Between the files and the diff", REVIEW),
    Action("split", ("t",), Section.VIEW, "", "Unified or side by side", REVIEW),
    Action("wrap", ("w",), Section.VIEW, "", "Wrap long lines, or cut them", REVIEW),
    Action(
        "more",
        ("plus", "equals_sign"),
        Section.VIEW,
        "",
        "More unchanged lines around each change",
        REVIEW,
    ),
    Action("less", ("minus",), Section.VIEW, "", "Fewer unchanged lines", REVIEW),
    Action("whole", ("f", "W"), Section.VIEW, "", "The whole file, or its changes", REVIEW),
    Action("find", ("slash",), Section.VIEW, "search", "Search the lines of all files", REVIEW),
    Action("find-next", ("n",), Section.VIEW, "", "Next match, on into other files", REVIEW),
    Action("find-previous", ("N",), Section.VIEW, "", "Previous match", REVIEW),
    Action("search", ("slash",), Section.LOG, "search", "Search the log", AGENT),
    Action("search-next", ("n",), Section.LOG, "", "Next match", AGENT),
    Action("search-previous", ("N",), Section.LOG, "", "Previous match", AGENT),
    Action("follow", ("s",), Section.LOG, "", "Stand still, or follow the end", AGENT),
    Action("palette", ("colon", "ctrl+p"), Section.APP, "", "Every command, by name", ALL),
    Action("theme", ("t",), Section.APP, "", "Choose a theme"),
    Action("refresh", ("ctrl+r",), Section.APP, "", "Read everything again now"),
    Action("error", ("e",), Section.APP, "", "Read the last error again, in full", ALL),
    Action("help", ("question_mark",), Section.APP, "help", "This list", ALL),
    Action(
        "quit",
        ("q", "ctrl+c"),
        Section.APP,
        "quit",
        "Leave; agents go on. Asks when a verb is at work",
        ALL,
    ),
)

BY_ID: Final = {action.id: action for action in ACTIONS}


def at(place: Place) -> list[Action]:
    """The actions of one screen, in the table's order."""
    return [action for action in ACTIONS if place in action.places]


def bindings(place: Place) -> list[BindingType]:
    """Textual's bindings of one screen, one for each key.

    They have priority: each key is done with before the next one is looked at, so that keys typed
    ahead, into a filter that is about to open, go where they were meant to.
    """
    return [
        Binding(
            key,
            f"act('{action.id}', '{key}')",
            action.help,
            show=False,
            priority=True,
            id=f"{place}.{action.id}" if key == action.keys[0] else None,
        )
        for action in at(place)
        if action.is_bound
        for key in action.keys
    ]


def quiet(keys: str, action: str) -> Binding:
    """A binding that is told elsewhere, likewise done with before the next key."""
    return Binding(keys, action, show=False, priority=True)


_NAMES: Final = {
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "escape": "esc",
    "enter": "↵",
    "left": "←",
    "right": "→",
    "up": "↑",
    "down": "↓",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "exclamation_mark": "!",
}


def key_name(key: str) -> str:
    """A key as it is written for people: "/", "esc", "ctrl+p"."""
    return _NAMES.get(key, key)


def key_names(action: Action) -> str:
    """All its keys."""
    return action.told or " ".join(key_name(key) for key in action.keys)


def by_section(actions: Iterable[Action]) -> dict[Section, list[Action]]:
    sections: dict[Section, list[Action]] = {}
    for action in actions:
        sections.setdefault(action.section, []).append(action)
    return {section: sections[section] for section in Section if section in sections}


def render_keys_markdown() -> str:
    """The table of keys for the README."""
    lines = []
    for section, actions in by_section(ACTIONS).items():
        lines += [f"**{section}**", "", "| key | what it does |", "|---|---|"]
        for action in actions:
            keys = " ".join(f"`{key}`" for key in key_names(action).split())
            where = {FLEET: " (fleet)", AGENT: " (agent)", REVIEW: " (review)"}.get(
                action.places, ""
            )
            lines.append(f"| {keys} | {action.help}{where} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
