"""How a verdict comes about: refused with the reason, or asked about once more, then given."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Final

from swarm_tui.command import Approve, Reject, SendBack, Verdict
from swarm_tui.errors import UsageError
from swarm_tui.handoff import Drafts, Flag, Review
from swarm_tui.model import AgentId, Judgement
from swarm_tui.review.landing import branch_name
from swarm_tui.review.verdict import write_message
from swarm_tui.text import EMPTY, Safe, join, literal, sanitize
from swarm_tui.ui.about import OID, count_lines, tell_flag
from swarm_tui.ui.actions import BY_ID
from swarm_tui.ui.figures import plural
from swarm_tui.ui.screen import SwarmScreen
from swarm_tui.ui.verdict import WORDS, Answer, Plea, VerdictDialog

_LISTED_AT_MOST: Final = 6


@dataclass(frozen=True, slots=True)
class Terms:
    """What a verdict's question says of the outside world."""

    lands_in: Safe = EMPTY
    """The owner's repository; empty: none is known."""
    signs_as: Safe = EMPTY
    """The reviewer; empty: verdicts are not signed."""


class Court:
    """Of one review."""

    def __init__(
        self,
        screen: SwarmScreen,
        review: Review,
        terms: Terms,
        find_hindrance: Callable[[], Safe],
        messages: MutableMapping[Judgement, str],
        on_verdict: Callable[[Verdict], None],
    ) -> None:
        """`find_hindrance` says why there can be no verdict any more, or nothing.

        What is typed into a question stands in `messages`, for the next time that it is asked.
        """
        self._screen = screen
        self._review = review
        self._terms = terms
        self._find_hindrance = find_hindrance
        self._on_verdict = on_verdict
        self._messages = messages

    def why_not(self, judgement: Judgement) -> Safe:
        """Why it is not possible now; empty when it is."""
        agent = AgentId(self._review.agent)
        denied = self._screen.context.deny(BY_ID[judgement.value], agent)
        return self._find_hindrance() or (denied.reason if denied else EMPTY)

    def is_open(self, judgement: Judgement) -> bool:
        return not self.why_not(judgement)

    def refuse_unseen(self, unseen: Sequence[Flag]) -> None:
        """Tell which flags must be seen before an approval."""
        told = [tell_flag(flag, with_path=True).text for flag in unseen[:_LISTED_AT_MOST]]
        if len(unseen) > _LISTED_AT_MOST:
            told.append(literal(f"… and {len(unseen) - _LISTED_AT_MOST:,} more"))
        told.append(literal("space: viewed, !: next flag"))
        count = plural(len(unseen), "flag has", "flags have")
        self._screen.refuse(literal(f"{count} not been seen"), join(told, "\n"))

    def ask(self, judgement: Judgement, drafts: Drafts) -> None:
        """Ask once more, and give the verdict; or tell why that is not possible now."""
        if reason := self.why_not(judgement):
            self._screen.refuse(literal(f"Cannot {WORDS[judgement]} now"), reason)
            return
        dialog = VerdictDialog(
            self._plead(judgement, drafts),
            self._messages.get(judgement, ""),
            self._screen.context.monotonic,
        )

        def answered(answer: Answer | None) -> None:
            self._messages[judgement] = dialog.pad.text
            if answer is None:
                return
            if reason := self.why_not(judgement):  # it may have changed while one was typing
                self._screen.refuse(literal(f"Cannot {WORDS[judgement]} now"), reason)
                return
            self._on_verdict(self._make(judgement, answer))
            self._screen.dismiss()

        self._screen.app.push_screen(dialog, answered)

    def _make(self, judgement: Judgement, answer: Answer) -> Verdict:
        review = self._review
        agent, message = AgentId(review.agent), answer.message
        match judgement:
            case Judgement.APPROVE:
                return Approve(agent, review.number, review.digest, message)
            case Judgement.SEND_BACK:
                return SendBack(agent, review.number, review.digest, message)
            case Judgement.REJECT:
                return Reject(agent, review.number, review.digest, message, answer.is_kept)

    def _plead(self, judgement: Judgement, drafts: Drafts) -> Plea:
        """What is decided, on what exactly, and what happens then."""
        review = self._review
        agent = self._screen.context.store.agent(AgentId(review.agent))
        host = sanitize(agent.host) if agent else EMPTY
        counts = (
            count_lines(review.changes),
            literal(plural(len(review.flags), "flag") if review.flags else "no flags"),
            literal(plural(len(drafts.comments), "comment")),
        )
        facts = (
            ("agent", join((review.name, host), " on ")),
            ("review", literal(f"{review.number}")),
            ("head", sanitize(review.head[:OID])),
            ("digest", sanitize(review.digest.rpartition(":")[2][:OID])),
            ("changes", join(counts, " · ")),
        )
        title = join((literal(f"{WORDS[judgement].capitalize()} "), review.name, literal("?")), "")

        def check(message: str) -> Safe:
            try:
                write_message(judgement, message, drafts.comments)
            except UsageError as error:
                return join((error.title, join((error.detail, error.hint))), ": ")
            return EMPTY

        then = (*self._foretell(judgement, drafts), self._tell_signature())
        return Plea(judgement, title, facts, then, check)

    def _foretell(self, judgement: Judgement, drafts: Drafts) -> Sequence[Safe]:
        review = self._review
        match judgement:
            case Judgement.APPROVE:
                branch = sanitize(branch_name(review.name, review.number))
                where = self._terms.lands_in or literal("the owner's repository")
                parts = (literal("That commit lands as branch"), branch, literal("in"), where)
                found = "the approval and your comments" if drafts.comments else "the approval"
                return (join(parts), literal(f"The agent is resumed, and finds {found}."))
            case Judgement.SEND_BACK:
                found = "your comments" if drafts.comments else "your message"
                told = f"Nothing lands. The agent is resumed, and finds {found}."
            case Judgement.REJECT:
                told = "Nothing lands. Kept, the agent is resumed and told. Killed, it is gone: "
                told += "VM, disk and snapshots."
        return (literal(told),)

    def _tell_signature(self) -> Safe:
        if not self._terms.signs_as:
            return literal("The verdict is not signed.")
        return join((literal("The verdict is signed as"), self._terms.signs_as))
