"""Taking an agent's work out of its guest as one bounded pack.

What runs in the guest is the guest's own affair: nothing that it says is more than a claim, which
the quarantine checks. It only reads the agent's repository, but for new objects and a ref of ours.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final

from swarm_tui.errors import ReviewError
from swarm_tui.model import Address, Completed
from swarm_tui.ports import Guest, Progress
from swarm_tui.review.git import OID, storage
from swarm_tui.review.quarantine import Quarantine
from swarm_tui.text import Safe, literal, sanitize

LIMIT_BYTES: Final = 64 << 20
TIMEOUT_S: Final = 60.0

_UNTAKEN: Final = "The agent's work could not be taken"
_SPARE_S: Final = 2.0
"""What is left of our deadline when the guest's ends: it must be able to say so."""
_EXCERPT_BYTES: Final = 2000

# Handed on as a variable, hence without a quote '.
# Under software emulation each process costs some ten milliseconds, hence as few as can be.
_WORK: Final = r"""
fail() { echo "$2" >&2; exit "$1"; }
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY
export GIT_OPTIONAL_LOCKS=0 GIT_NO_REPLACE_OBJECTS=1 GIT_TERMINAL_PROMPT=0 LC_ALL=C
run() {
  git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c core.splitIndex=false \
    -c advice.addEmbeddedRepo=false -c core.safecrlf=false -c i18n.commitEncoding=UTF-8 \
    -c pack.threads=1 -c gc.auto=0 "$@"
}
cd "$swarm_workspace" || exit 3
command -v git >/dev/null || fail 3 "There is no git."
newline="
"
# Names are looked up before contents are shown: one process tells all there is to know.
told=$(run cat-file --batch <<END
HEAD^{commit}
$swarm_base^{commit}
END
) || fail 3 "git does not work in the workspace."
case $told in
  "HEAD^{commit} missing"*) fail 4 "HEAD is no commit; there may be none yet." ;;
  *" commit "*"${newline}committer "*) ;;
  *) fail 4 "HEAD is not a commit." ;;
esac
head=${told%% *} tree=${told#*"${newline}tree "} time=${told#*"${newline}committer "}
tree=${tree%%"$newline"*} time=${time%%"$newline"*}
time=${time% *} time=${time##* }

# What git add would add, in an index of our own. cp -p: by its time git knows what it must read.
if [ -d .git ]; then folder=.git; else folder=$(run rev-parse --git-dir) || exit 3; fi
index=$folder/swarm-index.$$
trap "rm -f \"\$index\" \"\$index.lock\"" EXIT
if [ -f "$folder/index" ]; then
  cp -p "$folder/index" "$index" 2>/dev/null || fail 5 "Its index cannot be copied."
fi
export GIT_INDEX_FILE="$index"
run add --all --ignore-errors >&2 || {
  [ $? = 1 ] || fail 5 "git cannot add the uncommitted work."
  echo "Some files could not be added, and are not part of it." >&2
}
work=$(run write-tree) || fail 5 "git cannot write the uncommitted work."
state=clean
if [ "$work" != "$tree" ]; then
  state=uncommitted
  export GIT_AUTHOR_NAME=swarm-tui GIT_AUTHOR_EMAIL=swarm@localhost GIT_AUTHOR_DATE="@$time +0000"
  export GIT_COMMITTER_NAME=swarm-tui GIT_COMMITTER_EMAIL=swarm@localhost
  export GIT_COMMITTER_DATE="@$time +0000"
  head=$(run commit-tree "$work" -p "$head" -m "Uncommitted work") || fail 5 "git cannot commit it."
fi
if [ -z "$swarm_number" ]; then
  echo "swarm-head 1 $head $state"
  exit
fi
[ $state = clean ] || run update-ref "refs/swarm/$swarm_number" "$head" || fail 5 "No ref of ours."
if [ "$head" = "$swarm_base" ] && [ -z "$swarm_needs_base" ]; then
  echo "swarm-pack 1 $head $state empty"
  exit
fi
echo "swarm-pack 1 $head $state packed"
# The base itself is sent without what was before it.
revs="$head$newline^$swarm_base"
[ -z "$swarm_needs_base" ] || revs="--shallow $swarm_base$newline$head$newline$swarm_base"
case $told in
  *"$newline$swarm_base^{commit} missing"*) revs=$head ;;
esac
run pack-objects --revs --thin --stdout --delta-base-offset -q <<END || fail 6 "git cannot pack it."
$revs
END
"""

# Ends with all that it started when time is up: a filter of the repository may hang.
_WATCHED: Final = r"""
# In the background no shell is the leader of its group, so that setsid has no need to fork.
setsid sh -c "eval \"\$swarm_work\"" </dev/null &
work=$!
{
  trap "kill \$!; exit" TERM
  sleep "$swarm_time" &
  wait $!
  kill -KILL "-$work"
} </dev/null >/dev/null 2>&1 &
watch=$!
wait $work
status=$?
kill -TERM $watch 2>/dev/null
[ $status != 137 ] || echo "It was not done after $swarm_time s, or out of memory." >&2
exit $status
"""

# Not as root, or the agent could not write any more what we wrote.
_SCRIPT: Final = r"""
export swarm_workspace=$1 swarm_base=$2 swarm_number=$3 swarm_needs_base=$4 swarm_time=$5
export swarm_work=__WORK__ swarm_watched=__WATCHED__
[ -d "$1" ] || { echo "There is no workspace at $1." >&2; exit 3; }
[ ! -O "$1" ] || eval "$swarm_watched"
owner=$(stat -c "%U %u %g" "$1") || exit 3
set -- $owner
case $1 in
  UNKNOWN) exec setpriv --reuid "$2" --regid "$3" --clear-groups sh -c "eval \"\$swarm_watched\"" ;;
  *) exec su -s /bin/sh "$1" -c "eval \"\$swarm_watched\"" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Pulled:
    head: str
    is_uncommitted: bool
    """The head is a commit of our helper, on top of the agent's own."""
    pack_bytes: int
    remark: Safe
    """What git complained about in the guest, as files that it could not read; mostly empty."""


async def pull(
    guest: Guest,
    address: Address,
    quarantine: Quarantine,
    number: int,
    base: str,
    on_progress: Progress,
    *,
    limit_bytes: int = LIMIT_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Pulled:
    """Take the agent's work as review `number`, committed or not. Its processes must stand still.

    Raises ReviewError for what cannot be reviewed, Busy, GuestError, DeadlineExceeded,
    SetupError and StorageFull.
    """
    needs_base = await quarantine.prepare(base)
    on_progress(literal("taking the work"), None)

    def tell(total: int) -> None:
        if total >> 20:
            on_progress(sanitize(f"taking the work: {total >> 20} MiB"), None)

    with quarantine.incoming() as folder:
        pack = folder / "pack"
        done = await guest.download(
            address,
            script(address.workspace, base, number, needs_base=needs_base, timeout_s=timeout_s),
            pack,
            limit_bytes=limit_bytes,
            timeout_s=timeout_s,
            on_bytes=tell,
        )
        _check(done)
        with storage():
            size = pack.stat().st_size
        on_progress(literal("checking the work"), None)
        header = await quarantine.take(pack, number, base)
    return Pulled(header.head, header.is_uncommitted, size, _excerpt(done))


async def head_now(
    guest: Guest, address: Address, base: str, *, timeout_s: float = TIMEOUT_S
) -> str:
    """The head that `pull` would take now; the same as before as long as nothing changed.

    Raises ReviewError, GuestError and DeadlineExceeded.
    """
    done = await guest.run(
        address, script(address.workspace, base, None, timeout_s=timeout_s), timeout_s=timeout_s
    )
    _check(done)
    words = done.stdout.decode("ascii", "replace").split()
    if words[:2] != ["swarm-head", "1"] or len(words) != 4 or not OID.fullmatch(words[2]):
        raise ReviewError(_UNTAKEN, "The guest does not tell what its head is.")
    return words[2]


def script(
    workspace: str, base: str, number: int | None, *, needs_base: bool = False, timeout_s: float
) -> str:
    """What `pull` runs in the guest, or without a number `head_now`."""
    words = (
        workspace,
        base,
        "" if number is None else f"{number:d}",
        "yes" if needs_base else "",
        f"{max(timeout_s - _SPARE_S, timeout_s / 2):.0f}",
    )
    parts = {"__WORK__": _WORK, "__WATCHED__": _WATCHED}
    text = _SCRIPT
    for place, part in parts.items():
        text = text.replace(place, shlex.quote(part))
    return f"set -- {shlex.join(words)}\n{text}"


def _check(done: Completed) -> None:
    if done.exit_status:
        raise ReviewError(
            _UNTAKEN, _excerpt(done) or f"The guest ended with status {done.exit_status}."
        )


def _excerpt(done: Completed) -> Safe:
    return sanitize(done.stderr[-_EXCERPT_BYTES:].strip(), lines="many", max_cells=400)
