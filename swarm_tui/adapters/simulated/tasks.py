"""What simulated agents work on, and the words in which they tell it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Task:
    slug: str
    """The agent's name is made of it; short, so that a number after it still fits on a tile."""
    text: str
    files: tuple[str, ...]
    test: str
    symbol: str


TASKS: Final = (
    Task(
        "paging",
        "Page the orders API by cursor instead of by offset",
        ("api/orders.py", "db/cursor.py", "api/schema.py"),
        "tests/api/test_orders.py",
        "next_cursor",
    ),
    Task(
        "lockout",
        "Lock an account for ten minutes after five failed logins",
        ("auth/login.py", "auth/attempts.py", "settings.py"),
        "tests/auth/test_login.py",
        "is_locked",
    ),
    Task(
        "rounding",
        "Fix the cent that invoices lose when discounts are split",
        ("billing/invoice.py", "billing/money.py"),
        "tests/billing/test_rounding.py",
        "split_evenly",
    ),
    Task(
        "csv-import",
        "Import customer lists of 2 GB without loading them whole",
        ("imports/reader.py", "imports/batch.py", "cli/load.py"),
        "tests/imports/test_stream.py",
        "read_rows",
    ),
    Task(
        "dark-theme",
        "Give the settings page the dark theme of the rest",
        ("web/settings.tsx", "web/theme.css", "web/tokens.ts"),
        "web/settings.test.tsx",
        "useTheme",
    ),
    Task(
        "flaky-test",
        "Find out why test_cache fails once in fifty runs",
        ("cache/store.py", "cache/expiry.py"),
        "tests/cache/test_expiry.py",
        "evict_stale",
    ),
    Task(
        "rate-limit",
        "Limit each API key to 600 calls a minute, with a clear 429",
        ("api/limits.py", "api/middleware.py", "redis/bucket.py"),
        "tests/api/test_limits.py",
        "take_token",
    ),
    Task(
        "typos",
        "Let product search forgive one typo",
        ("search/index.py", "search/distance.py"),
        "tests/search/test_fuzzy.py",
        "within_one_edit",
    ),
    Task(
        "webhooks",
        "Send failed webhooks again, with back-off and a dead letter box",
        ("hooks/sender.py", "hooks/queue.py", "db/migrations/0042.sql"),
        "tests/hooks/test_retry.py",
        "next_attempt",
    ),
    Task(
        "config",
        "Type the configuration and refuse unknown keys",
        ("config/model.py", "config/load.py"),
        "tests/config/test_strict.py",
        "nearest_key",
    ),
    Task(
        "thumbs",
        "Make thumbnails in the background, not in the request",
        ("media/thumbs.go", "media/worker.go", "media/http.go"),
        "media/thumbs_test.go",
        "Enqueue",
    ),
    Task(
        "audit-log",
        "Export the audit log as signed JSON lines",
        ("audit/export.py", "audit/sign.py", "cli/audit.py"),
        "tests/audit/test_export.py",
        "sign_line",
    ),
    Task(
        "utc-dates",
        "Store all times in UTC and show them in the user's zone",
        ("core/times.py", "db/types.py", "web/format.ts"),
        "tests/core/test_times.py",
        "to_local",
    ),
    Task(
        "slow-sql",
        "Bring the monthly report from 40 s below 2 s",
        ("reports/monthly.py", "reports/query.sql"),
        "tests/reports/test_monthly.py",
        "sum_by_month",
    ),
    Task(
        "two-factor",
        "Add time-based one-time passwords to the login",
        ("auth/totp.py", "auth/login.py", "web/login.tsx"),
        "tests/auth/test_totp.py",
        "verify_code",
    ),
    Task(
        "wire-v3",
        "Move the wire format to version 3, reading version 2",
        ("wire/codec.rs", "wire/v2.rs", "wire/v3.rs"),
        "wire/tests/compat.rs",
        "decode_frame",
    ),
    Task(
        "undo",
        "Keep deleted notes for 30 days and let people undo",
        ("notes/store.py", "notes/trash.py", "web/notes.tsx"),
        "tests/notes/test_trash.py",
        "restore_note",
    ),
    Task(
        "metrics",
        "Stop user ids from becoming metric labels",
        ("metrics/labels.go", "metrics/registry.go"),
        "metrics/labels_test.go",
        "allowLabel",
    ),
    Task(
        "dead-links",
        "Check all links of the documentation in CI",
        ("docs/check.py", "ci/docs.yml"),
        "tests/docs/test_links.py",
        "find_dead",
    ),
    Task(
        "pool-leak",
        "Find the connection that is never given back to the pool",
        ("db/pool.py", "db/session.py"),
        "tests/db/test_pool.py",
        "release",
    ),
    Task(
        "plurals",
        "Get French plurals right in e-mails",
        ("mail/plural.py", "mail/fr.po"),
        "tests/mail/test_plural.py",
        "plural_form",
    ),
    Task(
        "uploads",
        "Check uploads by content, not by their name",
        ("uploads/sniff.py", "uploads/view.py"),
        "tests/uploads/test_sniff.py",
        "sniff_type",
    ),
    Task(
        "zoom",
        "Keep the point under the mouse in place when a graph is zoomed",
        ("web/graph.ts", "web/zoom.ts"),
        "web/zoom.test.ts",
        "zoomAround",
    ),
    Task(
        "vat-rates",
        "Read VAT rates from a table with dates, not from code",
        ("billing/tax.py", "billing/rates.csv"),
        "tests/billing/test_tax.py",
        "rate_on",
    ),
)

OWNERS: Final = ("mira", "jonas", "lin", "amara", "theo")

MODELS: Final = ("coder-large", "coder-large", "coder-small")

THOUGHTS: Final = (
    "What does {symbol} do when the list is empty?",
    "{file} holds two copies of the same rule; one of them is never called",
    "The caller in {file} ignores the error, that is where it gets lost",
    "Smallest change first: only {symbol}, the rest can stay",
    "The test names the bug well, the code does not; renaming as I go",
    "Two ways: a flag on {symbol}, or a second function. The second reads better",
    "This also touches {file}; checking who else imports it",
    "Before changing {symbol} I want a test that fails",
    "The old behaviour is documented in {file}, so it must stay as a fallback",
    "{symbol} is called in a loop; moving the query out of it",
)

FIXES: Final = (
    "handle the empty case",
    "keep the order stable",
    "read the limit from the settings",
    "close the handle on errors too",
    "compare without the time zone",
    "say which value was refused",
    "drop the second lookup",
    "test the boundary",
)

FAILURES: Final = (
    "AssertionError: expected 3 rows, got 2",
    "KeyError: 'next'",
    "TypeError: unsupported operand: None and int",
    "AssertionError: 429 != 200",
    "TimeoutError: no answer in 2.0 s",
)
