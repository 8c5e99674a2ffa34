"""What every simulated agent begins with: the files of a small shop, made up for the purpose."""

from __future__ import annotations

from typing import Final

FILES: Final = {
    "README.md": """\
# shop

The back end of a small shop, made up for the simulated swarm of swarm-tui.
Nobody runs it.

    uv run pytest
""",
    "pyproject.toml": """\
[project]
name = "shop"
version = "0.9.2"
requires-python = ">=3.11"
dependencies = ["httpx>=0.27"]

[dependency-groups]
dev = ["pytest>=8"]

[tool.pytest.ini_options]
addopts = "-q"
""",
    "uv.lock": """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "httpx"
version = "0.27.2"
source = { registry = "https://pypi.invalid/simple" }

[[package]]
name = "pytest"
version = "8.3.3"
source = { registry = "https://pypi.invalid/simple" }
""",
    ".github/workflows/tests.yml": """\
name: tests
on: [push, pull_request]
permissions:
  contents: read
jobs:
  tests:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: astral-sh/setup-uv@v5
      - run: uv run pytest
""",
    "settings.py": """\
\"\"\"What differs between one installation and another.\"\"\"

import os

DATABASE = os.environ.get("SHOP_DATABASE", "shop.sqlite")
PAGE_SIZE = 50
SESSION_S = 30 * 60
CACHE_S = 300
HOOK_TIMEOUT_S = 5.0
""",
    "api/orders.py": """\
\"\"\"The orders of a customer, newest first.\"\"\"

from typing import Any

import settings


def list_orders(db: Any, customer: int, offset: int = 0) -> dict[str, Any]:
    rows = db.execute(
        "SELECT id, placed, total FROM orders WHERE customer = ?"
        " ORDER BY placed DESC LIMIT ? OFFSET ?",
        (customer, settings.PAGE_SIZE, offset),
    ).fetchall()
    following = offset + len(rows) if len(rows) == settings.PAGE_SIZE else None
    return {"orders": [dict(row) for row in rows], "next": following}
""",
    "auth/login.py": """\
\"\"\"Signing in with a name and a password.\"\"\"

import hashlib
import hmac
import time
from typing import Any

import settings


class Denied(Exception):
    pass


def login(db: Any, name: str, password: str) -> dict[str, Any]:
    user = db.execute("SELECT * FROM users WHERE name = ?", (name,)).fetchone()
    if user is None or not _matches(user["hash"], user["salt"], password):
        raise Denied("wrong name or password")
    return {"user": user["id"], "until": time.time() + settings.SESSION_S}


def _matches(expected: bytes, salt: bytes, password: str) -> bool:
    given = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
    return hmac.compare_digest(expected, given)
""",
    "billing/invoice.py": """\
\"\"\"Invoices: lines, a discount, and what is to be paid.\"\"\"

from dataclasses import dataclass

from billing.money import share


@dataclass(frozen=True)
class Line:
    text: str
    cents: int


def discounted(lines: list[Line], discount: int) -> list[Line]:
    \"\"\"Spread a discount of so many cents over the lines, by their price.\"\"\"
    total = sum(line.cents for line in lines)
    return [
        Line(line.text, line.cents - share(discount, line.cents, total))
        for line in lines
    ]


def total(lines: list[Line]) -> int:
    return sum(line.cents for line in lines)
""",
    "billing/money.py": """\
\"\"\"Amounts are whole cents.\"\"\"


def share(amount: int, part: int, whole: int) -> int:
    return round(amount * part / whole)


def render(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
""",
    "cache/expiry.py": """\
\"\"\"When an entry is too old.\"\"\"

import time

import settings


def is_stale(stored_at: float) -> bool:
    return time.time() - stored_at > settings.CACHE_S
""",
    "cache/store.py": """\
\"\"\"A cache in memory.\"\"\"

import time
from typing import Any

from cache.expiry import is_stale

_entries: dict[str, tuple[float, Any]] = {}


def put(key: str, value: Any) -> None:
    _entries[key] = (time.time(), value)


def get(key: str) -> Any:
    if key not in _entries:
        return None
    stored_at, value = _entries[key]
    if is_stale(stored_at):
        del _entries[key]
        return None
    return value


def evict_stale() -> int:
    stale = [key for key, (at, _) in _entries.items() if is_stale(at)]
    for key in stale:
        del _entries[key]
    return len(stale)
""",
    "core/times.py": """\
\"\"\"Dates and times as people read them.\"\"\"

from datetime import datetime


def now() -> datetime:
    return datetime.now()


def render(moment: datetime) -> str:
    return moment.strftime("%d.%m.%Y %H:%M")
""",
    "db/migrations/0041.sql": """\
ALTER TABLE orders ADD COLUMN note TEXT NOT NULL DEFAULT '';
""",
    "db/pool.py": """\
\"\"\"A few connections, shared.\"\"\"

import queue
import sqlite3

import settings


class Pool:
    def __init__(self, size: int = 4) -> None:
        self._free: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()
        for _ in range(size):
            connection = sqlite3.connect(settings.DATABASE, check_same_thread=False)
            self._free.put(connection)

    def take(self) -> sqlite3.Connection:
        return self._free.get(timeout=10)

    def release(self, connection: sqlite3.Connection) -> None:
        self._free.put(connection)
""",
    "db/session.py": """\
\"\"\"One piece of work on the database.\"\"\"

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from db.pool import Pool

T = TypeVar("T")


def transact(pool: Pool, work: Callable[[sqlite3.Connection], T]) -> T:
    connection = pool.take()
    connection.execute("BEGIN")
    done = work(connection)
    connection.commit()
    pool.release(connection)
    return done
""",
    "hooks/sender.py": """\
\"\"\"Telling other services what happened.\"\"\"

from typing import Any

import httpx

import settings


def send(url: str, event: dict[str, Any]) -> bool:
    try:
        answer = httpx.post(url, json=event, timeout=settings.HOOK_TIMEOUT_S)
    except httpx.TransportError:
        return False
    return answer.is_success
""",
    "tests/cache/test_expiry.py": """\
import time

import settings
from cache import store


def test_stale_entries_go(monkeypatch):
    monkeypatch.setattr(settings, "CACHE_S", 0.05)
    store.put("a", 1)
    time.sleep(0.03)
    store.put("b", 2)
    time.sleep(0.03)
    assert store.evict_stale() == 1
    assert store.get("b") == 2
""",
}
