"""Whether a landed branch is what somebody approved: by its objects and a signature alone."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from swarm_tui.errors import ReviewError, SignatureError
from swarm_tui.handoff import Verdict
from swarm_tui.ports import Signer
from swarm_tui.review import verdict
from swarm_tui.review.landing import read_landed
from swarm_tui.review.quarantine import Quarantine


@dataclass(frozen=True, slots=True)
class Proof:
    verdict: Verdict
    fingerprint: str
    """Of the key that signed it: "SHA256:…"."""


async def prove(target: Path, branch: str, signer: Signer, allowed_signers: Path) -> Proof:
    """The signed verdict that approves exactly what stands at `branch` of the repository.

    The commit, its tree and the digest of the whole patch are taken from the repository's objects
    now. Raises NotFound (no such branch), ReviewError (no verdict, or it is about other content)
    and SignatureError (unsigned, or the signature does not hold).
    """
    landed = await read_landed(target, branch)
    payload = landed.attachments.get("verdict.json")
    if payload is None:
        raise ReviewError(
            f"No verdict is stored for {branch}",
            f"{target} has none beside it.",
            "It was not landed by an approval, or the verdict was removed.",
        )
    signature = landed.attachments.get("verdict.json.sig", b"").decode("ascii", "replace")
    decided = verdict.parse(payload, signature)
    if not signature:
        raise SignatureError(
            f"The verdict on {branch} is not signed",
            f"“{decided.reviewer}” is named in it, but nothing proves it.",
            "It was given with review.key = none.",
        )
    fingerprint = await signer.check(payload, signature, decided.reviewer, allowed_signers)
    with tempfile.TemporaryDirectory(prefix="swarm-tui-verify-") as folder:
        async with Quarantine(Path(folder) / "objects.git", target) as quarantine:
            await quarantine.prepare(decided.base)
            digest = await quarantine.digest(decided.base, landed.head)
    verdict.prove(decided, head=landed.head, tree=landed.tree, branch=branch, digest=digest)
    return Proof(decided, fingerprint)
