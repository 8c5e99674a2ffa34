"""The shared database, of both kinds: whole transactions, careful migrations, clear failures."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from postgres import Cluster

from swarm_tui.database import Database, open_database
from swarm_tui.database.migration import Migration, shipped
from swarm_tui.errors import StoreDamaged, StoreError, StoreNewer, StoreUnreachable, UsageError

DEADLINE_S = 30.0

GOOD = Migration(1, "good", ("CREATE TABLE good (name TEXT PRIMARY KEY)",))
MORE = Migration(2, "more", ("CREATE TABLE more (name TEXT)", "INSERT INTO good VALUES ('more')"))
WRONG = Migration(3, "wrong", ("CREATE TABLE half (name TEXT)", "INSERT INTO nowhere VALUES (1)"))


def names(database: Database) -> list[str]:
    with database.read() as transaction:
        return [row[0] for row in transaction.rows("SELECT name FROM good ORDER BY name")]


def run(database: Database, *statements: str) -> None:
    with database.write() as transaction:
        for statement in statements:
            transaction.run(statement)


def cut_off(database: Database, statement: str = "", touched: str = "") -> None:
    with database.write() as transaction:
        if statement:
            transaction.run(statement)
        transaction.touch("record", touched)
        raise ZeroDivisionError


def test_a_transaction_is_done_whole_or_not_at_all(store_url: str) -> None:
    with closing(open_database(store_url, (GOOD,))) as database:
        with database.write() as transaction:
            assert transaction.run("INSERT INTO good VALUES (?)", "50% ok?") == 1
        with pytest.raises(ZeroDivisionError):
            cut_off(database, "INSERT INTO good VALUES ('lost')")
        with pytest.raises(StoreError):
            run(database, "INSERT INTO good VALUES ('lost')", "INSERT INTO good VALUES ('50% ok?')")
        assert names(database) == ["50% ok?"]
    with closing(open_database(store_url, (GOOD,))) as again:
        assert names(again) == ["50% ok?"]


def test_the_clock_is_the_time_of_day(database: Database) -> None:
    with database.read() as transaction:
        assert abs(transaction.now() - time.time()) < DEADLINE_S


def test_what_is_there_is_kept_by_the_next_step(store_url: str) -> None:
    with closing(open_database(store_url, (GOOD,))) as old, old.write() as transaction:
        transaction.run("INSERT INTO good VALUES ('old')")
    with closing(open_database(store_url, (GOOD, MORE))) as new:
        assert names(new) == ["more", "old"]


def test_a_step_that_fails_leaves_the_old_schema(store_url: str) -> None:
    with closing(open_database(store_url, (GOOD,))) as old:
        assert names(old) == []
    broken = open_database(store_url, (GOOD, MORE, WRONG))
    for _ in range(2):
        with pytest.raises(StoreError):
            names(broken)
    with closing(open_database(store_url, (GOOD,))) as old:  # and not newer than it knows
        assert names(old) == []


def test_a_newer_schema_is_refused(store_url: str) -> None:
    with closing(open_database(store_url, (GOOD, MORE))) as new:
        assert names(new) == ["more"]
    with pytest.raises(StoreNewer) as raised:
        names(open_database(store_url, (GOOD,)))
    assert raised.value.exit_code == 15
    assert raised.value.hint


def test_those_who_migrate_at_once_take_turns(store_url: str) -> None:
    start = threading.Barrier(6)

    def go(_number: int) -> int:
        with closing(open_database(store_url)) as database:
            start.wait(DEADLINE_S)
            with database.read() as transaction:
                return transaction.changes(0).seq

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(go, range(6))) == [0] * 6
    with closing(open_database(store_url)) as database, database.read() as transaction:
        [[count]] = transaction.rows("SELECT count(*) FROM schema_steps")
        assert count == len(shipped())


def test_steps_are_numbered_without_gaps() -> None:
    assert [step.number for step in shipped()] == list(range(1, len(shipped()) + 1))


def test_what_was_touched_is_told_once_it_is_committed(database: Database) -> None:
    with database.write() as transaction:
        transaction.touch("record", "a")
        transaction.touch("record", "b")
    with database.read() as transaction:
        first = transaction.changes(0)
    assert first.keys == {("record", "a"), ("record", "b")}
    with pytest.raises(ZeroDivisionError):
        cut_off(database, touched="a")
    with database.write() as transaction:
        transaction.touch("review", "b")
    with database.read() as transaction:
        assert transaction.changes(first.seq).keys == {("review", "b")}
        assert transaction.changes(99).is_all


def test_no_change_is_missed_while_many_write(database: Database, store_url: str) -> None:
    """Numbers must come into sight in their order, or a reader would go past one for ever."""
    seen: set[str] = set()

    def write(thread: int) -> None:
        with closing(open_database(store_url)) as own:
            for number in range(10):
                with own.write() as transaction:
                    transaction.touch("record", f"{thread}-{number}")

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, thread) for thread in range(4)]
        since = 0
        while True:
            is_over = all(writer.done() for writer in writers)
            with database.read() as transaction:
                changes = transaction.changes(since)
            since = changes.seq
            seen |= {key for _, key in changes.keys}
            if is_over:
                break
    for writer in writers:
        writer.result()
    assert len(seen) == 40


def test_a_watch_sees_what_another_process_did(database: Database, store_url: str) -> None:
    with closing(database.watch()) as watch:
        assert not watch.wait(0)
        with closing(open_database(store_url)) as other, other.write() as transaction:
            transaction.touch("record", "a")
        assert watch.wait(DEADLINE_S)
        assert not watch.wait(0)
        watch.wake()
        began = time.monotonic()
        assert not watch.wait(DEADLINE_S)
        assert time.monotonic() - began < DEADLINE_S  # woken, not out of patience


def test_a_url_of_another_kind_is_refused() -> None:
    for url in ("mysql://host/db", "sqlite://relative.db", "store.db"):
        with pytest.raises(UsageError):
            open_database(url)


# Cut off


def test_a_server_that_was_restarted_is_found_again(postgres: Cluster, postgres_url: str) -> None:
    database = open_database(postgres_url)
    with database.write() as transaction:
        transaction.touch("record", "kept")
    watch = database.watch()
    postgres.stop()
    try:
        with pytest.raises(StoreUnreachable) as raised, database.read():
            pytest.fail("nobody is there")
        assert raised.value.exit_code == 15
        with pytest.raises(StoreUnreachable):
            watch.wait(DEADLINE_S)
    finally:
        watch.close()
        postgres.start()
    with database.read() as transaction:
        assert transaction.changes(0).keys == {("record", "kept")}
    database.close()


def test_a_file_that_was_removed_is_told_and_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    database = open_database(f"sqlite://{path}")
    with database.write() as transaction:
        transaction.touch("record", "a")
    watch = database.watch()
    for part in tmp_path.glob("store.db*"):
        part.unlink()
    with pytest.raises(StoreUnreachable), database.write():
        pytest.fail("it would be lost")
    with pytest.raises(StoreUnreachable):
        watch.wait(DEADLINE_S)
    watch.close()
    assert not path.exists()


def test_a_damaged_file_is_told_and_left(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreDamaged) as raised, open_database(f"sqlite://{path}").read():
        pytest.fail("it was read")
    assert str(path) in raised.value.detail
    assert path.read_bytes() == b"not a database" * 1000


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    with closing(open_database(f"sqlite://{path}")) as database, database.write() as transaction:
        transaction.touch("record", "a")
        assert {part.stat().st_mode & 0o077 for part in path.parent.iterdir()} == {0}
    assert path.parent.stat().st_mode & 0o077 == 0
