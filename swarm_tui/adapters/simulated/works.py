"""What some simulated agents have changed in the shop, and how they go on when answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from swarm_tui.adapters.simulated.edits import Edit, Part, Work

WORKS: Final[Mapping[str, Work]] = {
    "lockout": Work(
        parts=(
            Part(
                "Count failed logins",
                (
                    Edit(
                        "auth/attempts.py",
                        """\
\"\"\"Failed logins, by name.\"\"\"

import time

MOST = 5
LOCK_S = 600.0

_failed: dict[str, list[float]] = {}


def note_failure(name: str) -> None:
    _failed.setdefault(name, []).append(time.monotonic())


def is_locked(name: str) -> bool:
    begin = time.monotonic() - LOCK_S
    recent = [at for at in _failed.get(name, []) if at > begin]
    return len(recent) >= MOST


def forget(name: str) -> None:
    _failed.pop(name, None)
""",
                    ),
                ),
            ),
            Part(
                "Lock an account after five failed logins",
                (
                    Edit(
                        "auth/login.py",
                        "import settings\nfrom auth import attempts\n",
                        "import settings\n",
                    ),
                    Edit(
                        "auth/login.py",
                        """\
    if attempts.is_locked(name):
        raise Denied("locked for ten minutes")
    user = db.execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
    if user is None or not _matches(user["hash"], user["salt"], password):
        attempts.note_failure(name)
        raise Denied("wrong name or password")
    attempts.forget(name)
""",
                        """\
    user = db.execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
    if user is None or not _matches(user["hash"], user["salt"], password):
        raise Denied("wrong name or password")
""",
                    ),
                ),
            ),
        ),
        loose=(
            Edit(
                "tests/auth/test_login.py",
                """\
from auth import attempts


def test_five_failures_lock():
    for _ in range(5):
        assert not attempts.is_locked("mira")
        attempts.note_failure("mira")
    assert attempts.is_locked("mira")
    attempts.forget("mira")
    assert not attempts.is_locked("mira")
""",
            ),
        ),
        later=(
            Part(
                "Read the limits from the settings",
                (
                    Edit("settings.py", "LOGIN_FAILURES = 5\nLOGIN_LOCK_S = 600.0\n"),
                    Edit("auth/attempts.py", "import time\n\nimport settings\n", "import time\n"),
                    Edit("auth/attempts.py", "", "MOST = 5\nLOCK_S = 600.0\n\n"),
                    Edit(
                        "auth/attempts.py",
                        """\
    begin = time.monotonic() - settings.LOGIN_LOCK_S
    recent = [at for at in _failed.get(name, []) if at > begin]
    return len(recent) >= settings.LOGIN_FAILURES
""",
                        """\
    begin = time.monotonic() - LOCK_S
    recent = [at for at in _failed.get(name, []) if at > begin]
    return len(recent) >= MOST
""",
                    ),
                ),
            ),
        ),
    ),
    "flaky-test": Work(
        parts=(
            Part(
                "Judge the age of all entries at one moment",
                (
                    Edit(
                        "cache/expiry.py",
                        """\
def is_stale(stored_at: float, now: float) -> bool:
    return now - stored_at > settings.CACHE_S
""",
                        """\
def is_stale(stored_at: float) -> bool:
    return time.time() - stored_at > settings.CACHE_S
""",
                    ),
                    Edit(
                        "cache/expiry.py", "import settings\n", "import time\n\nimport settings\n"
                    ),
                    Edit(
                        "cache/store.py",
                        "    if is_stale(stored_at, time.monotonic()):\n",
                        "    if is_stale(stored_at):\n",
                    ),
                    Edit(
                        "cache/store.py",
                        """\
    now = time.monotonic()
    stale = [key for key, (at, _) in _entries.items() if is_stale(at, now)]
""",
                        """\
    stale = [key for key, (at, _) in _entries.items() if is_stale(at)]
""",
                    ),
                    Edit(
                        "cache/store.py",
                        "    _entries[key] = (time.monotonic(), value)\n",
                        "    _entries[key] = (time.time(), value)\n",
                    ),
                ),
            ),
            Part(
                "Run the test fifty times on each push",
                (
                    Edit(
                        ".github/workflows/tests.yml",
                        """\
      - run: uv run pytest
      - run: uv run pytest --count 50 tests/cache
""",
                        "      - run: uv run pytest\n",
                    ),
                ),
            ),
        ),
        later=(
            Part(
                "Test with a clock that the test moves",
                (
                    Edit(
                        "tests/cache/test_expiry.py",
                        """\
import settings
from cache import store


def test_stale_entries_go(monkeypatch):
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    store.put("a", 1)
    now += settings.CACHE_S
    store.put("b", 2)
    now += 1
""",
                        """\
import time

import settings
from cache import store


def test_stale_entries_go(monkeypatch):
    monkeypatch.setattr(settings, "CACHE_S", 0.05)
    store.put("a", 1)
    time.sleep(0.03)
    store.put("b", 2)
    time.sleep(0.03)
""",
                    ),
                ),
            ),
        ),
    ),
    "pool-leak": Work(
        parts=(
            Part(
                "Give the connection back when the work fails",
                (
                    Edit(
                        "db/session.py",
                        """\
    try:
        connection.execute("BEGIN")
        done = work(connection)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        pool.release(connection)
    return done
""",
                        """\
    connection.execute("BEGIN")
    done = work(connection)
    connection.commit()
    pool.release(connection)
    return done
""",
                    ),
                    Edit(
                        "scripts/count-connections",
                        """\
#!/bin/sh
# How many connections the shop holds open: run it before and after a load test.
exec lsof -t "${SHOP_DATABASE:-shop.sqlite}" | wc -l
""",
                        mode="100755",
                    ),
                ),
            ),
        ),
        later=(
            Part(
                "Test that a failure leaks nothing",
                (
                    Edit(
                        "tests/db/test_pool.py",
                        """\
import pytest

from db.pool import Pool
from db.session import transact


def test_a_failure_gives_the_connection_back():
    pool = Pool(size=1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            transact(pool, lambda _: 1 / 0)
    assert transact(pool, lambda _: "free") == "free"
""",
                    ),
                ),
            ),
        ),
    ),
    "webhooks": Work(
        parts=(
            Part(
                "Keep failed webhooks in a table",
                (
                    Edit(
                        "db/migrations/0042.sql",
                        """\
CREATE TABLE hook_queue (
    id INTEGER PRIMARY KEY,
    url TEXT NOT NULL,
    event TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL
);
""",
                    ),
                    Edit("db/migrations/latest.sql", "0042.sql", mode="120000"),
                ),
            ),
            Part(
                "Send failed webhooks again, later and later",
                (
                    Edit(
                        "hooks/queue.py",
                        """\
\"\"\"Webhooks that wait for another try.\"\"\"

import json
import time
from typing import Any

from hooks.sender import send

MOST_TRIES = 8


def next_attempt(tries: int) -> float:
    return time.time() + 30 * 2**tries


def run_due(db: Any) -> None:
    due = "SELECT * FROM hook_queue WHERE due < ?"
    for row in db.execute(due, (time.time(),)).fetchall():
        is_sent = send(row["url"], json.loads(row["event"]))
        if is_sent or row["tries"] >= MOST_TRIES:
            db.execute("DELETE FROM hook_queue WHERE id = ?", (row["id"],))
            continue
        db.execute(
            "UPDATE hook_queue SET tries = tries + 1, due = ? WHERE id = ?",
            (next_attempt(row["tries"]), row["id"]),
        )
""",
                    ),
                ),
            ),
        ),
        later=(
            Part(
                "Move what failed eight times to a dead letter box",
                (
                    Edit(
                        "db/migrations/0042.sql",
                        "CREATE TABLE dead_hooks (url TEXT NOT NULL, event TEXT NOT NULL);\n",
                    ),
                    Edit(
                        "hooks/queue.py",
                        """\
        if is_sent or row["tries"] >= MOST_TRIES:
            if not is_sent:
                dead = (row["url"], row["event"])
                db.execute("INSERT INTO dead_hooks VALUES (?, ?)", dead)
""",
                        """\
        if is_sent or row["tries"] >= MOST_TRIES:
""",
                    ),
                ),
            ),
        ),
    ),
    "utc-dates": Work(
        parts=(
            Part(
                "Store times in UTC",
                (
                    Edit(
                        "core/times.py",
                        """\
from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def now() -> datetime:
    return datetime.now(UTC)


def to_local(moment: datetime, zone: str) -> datetime:
    return moment.astimezone(ZoneInfo(zone))


def render(moment: datetime, zone: str) -> str:
    return to_local(moment, zone).strftime("%d.%m.%Y %H:%M")
""",
                        """\
from datetime import datetime


def now() -> datetime:
    return datetime.now()


def render(moment: datetime) -> str:
    return moment.strftime("%d.%m.%Y %H:%M")
""",
                    ),
                ),
            ),
            Part(
                "Bring the zones along, for machines without them",
                (
                    Edit("pyproject.toml", '"httpx>=0.27", "tzdata>=2024.2"', '"httpx>=0.27"'),
                    Edit(
                        "uv.lock",
                        """\

[[package]]
name = "tzdata"
version = "2024.2"
source = { registry = "https://pypi.invalid/simple" }
""",
                    ),
                ),
            ),
        ),
        later=(
            Part(
                "Test both sides of a change to summer time",
                (
                    Edit(
                        "tests/core/test_times.py",
                        """\
from datetime import UTC, datetime

import pytest

from core.times import render


@pytest.mark.parametrize(("hour", "shown"), [(0, "01:30"), (1, "03:30")])
def test_summer_time(hour, shown):
    moment = datetime(2026, 3, 29, hour, 30, tzinfo=UTC)
    assert render(moment, "Europe/Berlin").endswith(shown)
""",
                    ),
                ),
            ),
        ),
    ),
    "rounding": Work(
        parts=(
            Part(
                "Split discounts without losing a cent",
                (
                    Edit(
                        "billing/money.py",
                        """\
def split_evenly(amount: int, parts: list[int]) -> list[int]:
    \"\"\"Split by weight; what rounding leaves over goes to the first parts.\"\"\"
    whole = sum(parts)
    shares = [amount * part // whole for part in parts]
    for index in range(amount - sum(shares)):
        shares[index] += 1
    return shares
""",
                        """\
def share(amount: int, part: int, whole: int) -> int:
    return round(amount * part / whole)
""",
                    ),
                    Edit("billing/invoice.py", "import split_evenly\n", "import share\n"),
                    Edit(
                        "billing/invoice.py",
                        """\
    shares = split_evenly(discount, [line.cents for line in lines])
    pairs = zip(lines, shares, strict=True)
    return [Line(line.text, line.cents - share) for line, share in pairs]
""",
                        """\
    total = sum(line.cents for line in lines)
    return [
        Line(line.text, line.cents - share(discount, line.cents, total))
        for line in lines
    ]
""",
                    ),
                ),
            ),
        ),
        later=(
            Part(
                "Split nothing among free lines, too",
                (
                    Edit(
                        "billing/money.py",
                        """\
    whole = sum(parts)
    if not whole:
        return [0] * len(parts)
""",
                        "    whole = sum(parts)\n",
                    ),
                ),
            ),
        ),
    ),
}
