"""Why a guest's pack was refused, in words for people."""

from __future__ import annotations

import re
from typing import Final

from swarm_tui.errors import ReviewError
from swarm_tui.review.git import GitFailed

REFUSED: Final = "The agent's work was refused"

_REASONS: Final = (
    (rb"hasDotdot", "A folder in it has an entry named “..”, which would lead out of the tree."),
    (rb"hasDot:", "A folder in it has an entry named “.”."),
    (rb"hasDotgit", "A folder in it has an entry that some file systems take for “.git”."),
    (rb"fullPathname", "A folder in it has an entry with a slash in its name."),
    (rb"emptyName", "A folder in it has an entry without a name."),
    (rb"duplicateEntries", "A folder in it has two entries of one name."),
    (rb"largePathname", "A name in it is longer than any file system takes."),
    (rb"gitmodulesSymlink", "Its .gitmodules is a symbolic link."),
    (rb"gitmodules", "Its .gitmodules holds what could run a command or write elsewhere."),
    (rb"gitattributes", "Its .gitattributes is not what git takes."),
    (rb"maximum allowed size|SIGXFSZ", "It is larger than allowed."),
    (
        rb"unresolved delta|did not receive expected|missing|not found|could not read|bad object",
        "It builds on objects that it does not hold and the base does not have.",
    ),
    (rb"premature end|early EOF|unexpected end", "It was cut short on its way."),
    (rb"allocat|memory|SIGXCPU|SIGKILL|SIGSEGV|SIGABRT", "To unpack it takes too much."),
    (rb"object \w+: \w+:", "An object in it breaks git's rules."),
    (
        rb"inflate|pack signature|SHA1 mismatch|corrupt|bad pack|unknown object|is corrupted",
        "It is damaged.",
    ),
)
"""What git says of a pack, in the order in which it is looked for, and what it means."""


def explain(failure: GitFailed) -> ReviewError:
    """The refusal that a failed git command means."""
    said = f"{failure.detail}".encode()
    reason = next((text for words, text in _REASONS if re.search(words, said)), "")
    return ReviewError(REFUSED, "\n".join(part for part in (reason, failure.detail) if part))
