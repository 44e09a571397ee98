"""The ledger, in a file and in PostgreSQL: leases, tokens, retries, death, and one batch a folder."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres_server

from omnihuman.errors import UserError
from omnihuman.rendering.ledger import Lease, Ledger
from omnihuman.rendering.ledger_store import LEDGER, PLACE
from omnihuman.rendering.worker import Policy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if postgres_server.PROGRAMS is None:
        pytest.skip(postgres_server.MISSING)
    pytest.importorskip("psycopg", reason="the driver psycopg is missing: pip install 'omnihuman[postgres]'")
    with postgres_server.serve(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["file", "server"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where ledgers lie in a test."""
    if request.param == "server":
        monkeypatch.setenv(PLACE, request.getfixturevalue("server"))
    return request.param


@pytest.fixture
def ledger(tmp_path: Path, kind: str) -> Ledger:
    made = Ledger(tmp_path)
    made.plan("m", ["a", "b"], [])
    return made


def test_a_lease_that_ran_out_goes_to_another_and_the_first_can_report_nothing(ledger: Ledger) -> None:
    first = ledger.claim("m", "one", 60, 3)
    second = ledger.claim("m", "two", 60, 3)
    assert first and second and (first.item, second.item) == ("a", "b")
    assert ledger.claim("m", "two", 60, 3) is None and 0 < (ledger.seconds_until_work("m") or 0) <= 60
    run_out(ledger, first)
    taken = ledger.claim("m", "two", 60, 3)
    assert taken and taken.item == "a" and taken.attempt == 2 and taken.token > second.token > first.token
    assert not ledger.renew(first, 60) and not ledger.done(first, 1, 1) and not ledger.fail(first, "x", None)
    assert not ledger.release(first)
    assert ledger.renew(taken, 60) and ledger.done(taken, 1.5, 10) and not ledger.done(taken, 9, 9)
    assert [(item.state, item.seconds) for item in ledger.items()] == [("done", 1.5), ("leased", 0.0)]


def run_out(ledger: Ledger, lease: Lease) -> None:
    assert ledger.renew(lease, -1.0)


def test_renewal_keeps_a_lease(ledger: Ledger) -> None:
    lease = ledger.claim("m", "one", 60, 3)
    assert lease
    run_out(ledger, lease)
    assert ledger.renew(lease, 60), "nobody has taken it yet"
    other = ledger.claim("m", "two", 60, 3)
    assert other and other.item == "b"


def test_failures_wait_and_lost_workers_end_in_death(ledger: Ledger) -> None:
    lease = ledger.claim("m", "one", 60, 2)
    assert lease and ledger.fail(lease, "a hiccup", 60)
    other = ledger.claim("m", "one", 60, 2)
    assert other and other.item == "b" and ledger.fail(other, "another", 0)
    again = ledger.claim("m", "one", 60, 2)
    assert again and (again.item, again.attempt) == ("b", 2), "the first waits still"
    assert ledger.claim("m", "one", 60, 2) is None and 0 < (ledger.seconds_until_work("m") or 0) <= 60
    run_out(ledger, again)
    assert ledger.claim("m", "one", 60, 2) is None
    assert [(item.state, item.error) for item in ledger.items()] == [
        ("failed", "a hiccup"),
        ("dead", "its worker ended without a word 2 times"),
    ]
    assert ledger.redrive() == 1
    fresh = ledger.claim("m", "one", 60, 2)
    assert fresh and (fresh.item, fresh.attempt) == ("b", 1) and ledger.fail(fresh, "no picture", None)
    assert [item.state for item in ledger.items()] == ["failed", "dead"]


def test_a_released_item_has_lost_no_attempt(ledger: Ledger) -> None:
    lease = ledger.claim("m", "one", 60, 3)
    assert lease and ledger.release(lease)
    assert [(item.state, item.attempt) for item in ledger.items()] == [("pending", 0), ("pending", 0)]


def test_another_batch_waits_for_leases_and_keeps_what_it_shares(ledger: Ledger, tmp_path: Path) -> None:
    lease = ledger.claim("m", "one", 60, 3)
    assert lease
    with pytest.raises(UserError, match="one is rendering another batch into this folder"):
        ledger.plan("n", ["b", "a", "c"], [])
    ledger.fail(lease, "no picture", None)
    ledger.plan("n", ["c", "a"], ["c"])
    assert [(item.id, item.state) for item in ledger.items()] == [("c", "done"), ("a", "dead")]
    with pytest.raises(UserError, match="holds another batch than its manifest says"):
        ledger.claim("m", "one", 60, 3)
    ledger.plan("n", ["c", "a"], [])
    assert ledger.items()[0].state == "pending", "a video that is gone is rendered again"
    other = Ledger(tmp_path / "elsewhere")
    assert not other.exists()
    (tmp_path / "elsewhere").mkdir()
    other.plan("m", ["a"], [])
    assert len(other.items()) == 1 and len(ledger.items()) == 2, "each folder has a batch of its own"


def test_a_damaged_or_older_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("no database at all, but long enough to be taken for one" * 20)
    with pytest.raises(UserError, match=r"\.sqlite cannot be used \(file is not a database\); .* submit the jobs"):
        Ledger(tmp_path).items()
    (tmp_path / LEDGER).unlink()
    with sqlite3.connect(tmp_path / LEDGER) as database:
        database.execute("CREATE TABLE batch (manifest TEXT, last_token INTEGER)")
    for use in (Ledger(tmp_path).items, lambda: Ledger(tmp_path).plan("m", ["a"], [])):
        with pytest.raises(UserError, match=r"has schema 1, this version of omnihuman writes 2; delete it and submit"):
            use()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nonsense", "OMNIHUMAN_LEDGER is no URL: give postgresql"),
        ("mysql://host/db", "OMNIHUMAN_LEDGER names mysql: give postgresql"),
        ("postgresql://me:secret@127.0.0.1:9/db", r"me:\*\*\*@127.0.0.1:9/db cannot be used .* see that the server"),
    ],
)
def test_a_database_that_is_not_there_is_told_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
) -> None:
    monkeypatch.setenv(PLACE, place)
    with pytest.raises(UserError, match=said) as caught:
        Ledger(tmp_path).plan("m", ["a"], [])
    assert "secret" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_missing_ledger_is_not_made_by_looking(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for use in (ledger.items, ledger.redrive, ledger.tokens, lambda: ledger.claim("m", "one", 60, 3)):
        with pytest.raises(UserError, match=r"ledger\.sqlite is missing: submit the jobs again"):
            use()
    assert not list(tmp_path.iterdir())
    (tmp_path / "ledger.sqlite").touch()
    assert not ledger.exists(), "a kill while it was made"
    ledger.plan("m", ["a"], [])
    assert ledger.exists() and [item.state for item in ledger.items()] == ["pending"]


@pytest.mark.usefixtures("kind")
def test_no_two_processes_claim_one_item(tmp_path: Path) -> None:
    Ledger(tmp_path).plan("m", [f"item-{i}" for i in range(60)], [])
    program = (
        "import sys; from pathlib import Path; from omnihuman.rendering.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "while lease := ledger.claim('m', sys.argv[2], 60, 3):\n"
        "    print(lease.item, lease.token); ledger.done(lease, 0, 1)"
    )
    crew = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(i)], stdout=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    claimed = [line.split() for process in crew for line in process.communicate()[0].splitlines()]
    assert sorted(item for item, _ in claimed) == sorted(f"item-{i}" for i in range(60))
    assert len({token for _, token in claimed}) == 60


def test_backoff_doubles_varies_and_ends() -> None:
    policy = Policy(max_attempts=4, backoff_seconds=2.0)
    assert [policy.retry_seconds(attempt, 0.5) for attempt in (1, 2, 3, 4)] == [2.0, 4.0, 8.0, None]
    drawn = [policy.retry_seconds(1, random.Random(i).random()) or 0.0 for i in range(200)]
    assert 1.0 <= min(drawn) < 1.1 and 2.9 < max(drawn) < 3.0
