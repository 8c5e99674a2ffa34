"""What runs inside a guest on our behalf: self-contained POSIX shell, for busybox and dash alike.

Everything that these scripts read in the guest was written by the guest and is checked first.
Words that come from here are passed as arguments, never pasted into a script.
"""

from __future__ import annotations

import shlex
from typing import Final

STARTED_ANEW: Final = 75
"""Exit status of FOLLOW: the file is another one, or shorter than it was."""

FOLLOW: Final = r"""
# FOLDER OFFSET: the bytes of FOLDER/events.jsonl from OFFSET on (and the one before), for ever.
file=$1/events.jsonl offset=$2
exec 2>/dev/null 3<&0
# Standard input ends with the channel or the connection: so does this, though it has no news.
{ cat <&3; kill $$; } >/dev/null &
trap "kill $!" EXIT

# Waiting costs no process where read takes a time and there is a FIFO to read nothing from.
nap() { sleep "$1" || sleep 1; }
pipe=$1/.follow.$$
if mkfifo -m 600 "$pipe"; then
  exec 6<>"$pipe"
  rm -f "$pipe"
  (read -r -t 0.01 _ <&6)
  case $? in 1 | 142) nap() { read -r -t "$1" _ <&6; } ;; esac
fi

until [ -f "$file" ]; do nap 0.2; done
exec 4<"$file"
size() { stat -L -c %s /proc/$$/fd/4; }
[ "$(size)" -ge "$offset" ] || exit 75
[ "$offset" -eq 0 ] || dd bs=1 skip=$((offset - 1)) count=0 <&4 >/dev/null

# A file without a name, whose time of change tells when we looked last: asking that costs no
# process either. Some shells compare whole seconds, so only a mark that is newer means no news.
# A clock that is set back spoils it, hence a look in every fiftieth round.
if true >"$pipe"; then
  exec 5<"$pipe"
  rm -f "$pipe"
fi
mark=/proc/$$/fd/5 round=0 seen=-1 calm=0 was_quiet=1
while :; do
  [ $((round % 50)) -ne 0 ] || was_quiet=1
  if [ $((round % 50)) -eq 0 ] || ! [ "$mark" -nt "$file" ]; then
    [ ! -e "$mark" ] || true >"$mark"
    if [ -e "$file" ] && ! [ "$file" -ef /proc/$$/fd/4 ]; then
      cat <&4
      exit 75
    fi
    [ -s /proc/$$/fd/4 ] || [ "$seen" -lt 1 ] || exit 75
    cat <&4 || exit 1
    while read -r key position; do [ "$key" != pos: ] || break; done </proc/$$/fdinfo/4
    if [ "$position" -ne "$seen" ]; then
      calm=0
    elif [ $was_quiet -eq 1 ]; then
      [ "$(size)" -ge "$position" ] || exit 75
    fi
    seen=$position was_quiet=0
  elif [ $was_quiet -eq 0 ]; then
    was_quiet=1
    [ "$(size)" -ge "$seen" ] || exit 75
  fi
  round=$((round + 1)) calm=$((calm + 1))
  if [ $calm -lt 10 ]; then nap 0.2; else nap 0.5; fi
done
"""

TRAFFIC: Final = r"""
# SECONDS: totals of received and sent bytes of all networks but the loopback, again and again.
exec 2>/dev/null
nap() { sleep "$1"; }
(read -r -t 0.01 _)
case $? in 1 | 142) nap() { read -r -t "$1" _; } ;; esac
while :; do
  received=0 sent=0
  while IFS=': ' read -r name in _ _ _ _ _ _ _ out _; do
    case $name:$in$out in
      lo:* | *:*[!0-9]* | *:) ;;
      *) received=$((received + in)) sent=$((sent + out)) ;;
    esac
  done </proc/net/dev
  echo "$received $sent" || exit 1
  nap "$1"
done
"""

FREEZE: Final = r"""
# 1|0 FOLDER TENTHS: stop the agent's processes (1) or let them go on (0), and wait until it is so.
wanted=$1 folder=$2 tries=$3
fail() { echo "$1" >&2; exit 1; }

use_cgroup() {
  case $group in /sys/fs/cgroup/?*) ;; *) fail 'agent.cgroup does not name a cgroup' ;; esac
  case $group/ in
    *[!A-Za-z0-9_./@:-]* | *//* | */./* | */../*) fail 'agent.cgroup is no plain path' ;;
  esac
  while IFS= read -r own; do
    case ${own#0::}/ in
      "${group#/sys/fs/cgroup}"/*) fail 'agent.cgroup names the cgroup of the SSH server itself' ;;
    esac
  done </proc/$$/cgroup
  [ -f "$group/cgroup.freeze" ] || fail 'the cgroup that agent.cgroup names cannot be frozen'
  echo "$wanted" >"$group/cgroup.freeze" || fail 'the cgroup takes no freeze'
}
cgroup_is_so() {
  while read -r key value; do
    [ "$key" != frozen ] || { [ "$value" = "$wanted" ]; return; }
  done <"$group/cgroup.events"
  return 1
}

# One line of /proc/PID/stat: PID (NAME) STATE PARENT PGRP …, where NAME may hold anything.
read_stat() {
  { IFS= read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  set -f
  set -- ${line##*) }
  set +f
  state=$1 parent=$2 pgrp=$3
}
use_processes() {
  case $pid in
    '' | *[!0-9]* | 0* | 1 | ????????????*) fail 'agent.pid does not name a process' ;;
  esac
  read_stat "$pid" || exit 0 # it has ended, and stands still for ever
  group=$pgrp signal=STOP
  [ "$wanted" = 1 ] || signal=CONT
  [ "$group" -gt 1 ] || fail 'agent.pid names a process of the kernel'
  ancestor=$$
  while [ "$ancestor" -gt 1 ] && read_stat "$ancestor"; do
    [ "$pgrp" != "$group" ] || fail 'agent.pid names the SSH server itself'
    ancestor=$parent
  done
  kill -$signal "-$group" || fail 'the processes of agent.pid take no signal'
}
processes_are_so() {
  for process in /proc/[0-9]*; do
    read_stat "${process#/proc/}" || continue
    [ "$pgrp" = "$group" ] || continue
    # D: it waits for its disk, or for a child of vfork() that is stopped, and goes no further.
    case $wanted$state in 1[DTtZXx] | 0[!T]) ;; *) return 1 ;; esac
  done
}
wait_until() {
  until "$1"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 0.1 2>/dev/null || sleep 1
  done
}

if [ -f "$folder/agent.cgroup" ]; then
  group=$(head -c 4096 "$folder/agent.cgroup")
  use_cgroup
  wait_until cgroup_is_so && exit 0
  echo 0 >"$group/cgroup.freeze"
elif [ -f "$folder/agent.pid" ]; then
  pid=$(head -c 100 "$folder/agent.pid")
  use_processes
  wait_until processes_are_so && exit 0
  kill -CONT "-$group"
else
  fail "neither $folder/agent.cgroup nor $folder/agent.pid says what to freeze"
fi
fail 'the processes did not come to a halt in time and were let go again'
"""

REFRESH: Final = r"""
# HELPER UNIXTIME, entropy in base64 on standard input: set the clock and stir the random numbers.
if [ -x "$1" ]; then exec "$1" "$2"; fi
cat >/dev/urandom && date -s "@$2" >/dev/null
"""

DELIVER: Final = r"""
# FOLDER ID BYTES, the message on standard input: there as a whole or not at all.
umask 022
inbox=$1/inbox new=$1/inbox/.$2.$$
# Delivered and read already: a sender that was cut off tries again.
[ ! -f "$inbox/read/$2.json" ] || exit 0
mkdir -p "$inbox" && rm -rf "$new" || exit 1
# No file that the agent put in the way is followed or written to.
set -C
cat >"$new" || exit 1
if [ "$(wc -c <"$new")" -ne "$3" ]; then
  rm -f "$new"
  echo 'the message was cut on its way' >&2
  exit 1
fi
mv -f "$new" "$inbox/$2.json"
"""


def command(script: str, *words: str | float) -> str:
    """One line for an SSH exec request, which any login shell hands over to a POSIX shell.

    `exec`, so that a signal to the command reaches the script.
    """
    return "exec " + shlex.join(("sh", "-c", script, "swarm", *map(str, words)))
