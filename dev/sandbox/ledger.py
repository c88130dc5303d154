"""The ledger: the referee of "happened once". An effect is on disk before it is answered.

SQLite in WAL mode, one short transaction for each call, run on the event loop itself: at 50 us each that is faster than
any hand-over to a thread, and concurrent twins can't get between the question "did I do this?" and the doing.
`synchronous=NORMAL` survives every kill of the process; only a power cut may cost the last moments.
"""

import json
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from dev.sandbox.partner import Call, Partner, Refusal

TABLES = """
CREATE TABLE IF NOT EXISTS effect (
    seq INTEGER PRIMARY KEY,
    partner TEXT NOT NULL,
    call TEXT NOT NULL,
    key TEXT NOT NULL,
    at TEXT NOT NULL,
    request TEXT NOT NULL,
    answer TEXT NOT NULL,
    traceparent TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS effect_by_key ON effect (key, partner);

-- Acknowledged work: `open` until its time has come, then `done` or `failed`.
CREATE TABLE IF NOT EXISTS promise (
    seq INTEGER PRIMARY KEY,
    partner TEXT NOT NULL,
    call TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,
    traceparent TEXT,
    due_at REAL NOT NULL,
    callbacks INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'open',
    error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS promise_by_key ON promise (key, partner);

-- News for Caseward; `owed` counts the deliveries still to be made.
CREATE TABLE IF NOT EXISTS event (
    event_id TEXT PRIMARY KEY,
    partner TEXT NOT NULL,
    body TEXT NOT NULL,
    owed INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'owed'
) STRICT;
"""


class KeyReused(Refusal):
    """The key belongs to a request with other content."""

    def __init__(self) -> None:
        super().__init__("key_reused", "This Idempotency-Key was used for another request")


@dataclass(frozen=True, kw_only=True)
class Order:
    """One request to a partner, checked and complete."""

    partner: Partner
    call: Call[Any]
    key: str
    content: dict[str, Any]
    traceparent: str | None

    @property
    def stored(self) -> str:
        """The content in one spelling, so that "other content" is a comparison of texts."""
        return json.dumps(self.content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Done:
    """It happened, and this is the answer (as JSON)."""

    answer: str


@dataclass(frozen=True)
class Pending:
    """The partner took it, and will do it."""


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Acknowledged work that is still open."""

    seq: int
    due_at: float


@dataclass(frozen=True, kw_only=True)
class Event:
    """One piece of news, and how many deliveries of it are owed."""

    event_id: str
    partner: str
    body: str
    owed: int


class Ledger:
    """Every effect that really happened, and what is still promised."""

    def __init__(self, file: Path, partners: Mapping[str, Partner]) -> None:
        self._file = file
        self._partners = partners
        self._db = sqlite3.connect(file, isolation_level=None)
        # A checkpoint fsyncs: rarely enough that it doesn't show in a benchmark's middle.
        self._db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=4000;" + TABLES
        )

    def close(self) -> None:
        """Close the file; every effect is in it already."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def perform(self, order: Order) -> Done | Pending:
        """Do it now. Raises a `Refusal` where the partner says no, or said so under this key."""
        with self._transaction():
            standing = self._standing(order)
            return standing or self._do(order)

    def promise(
        self, order: Order, *, due_at: float, callbacks: int, outcome: Literal["succeeded", "failed"]
    ) -> Promise | Done | Pending:
        """Acknowledge it now, and owe it; an idempotent partner answers what stands."""
        with self._transaction() as db:
            standing = self._standing(order)
            if standing is not None:
                return standing
            seq = db.execute(
                "INSERT INTO promise (partner, call, key, request, traceparent, due_at, callbacks, outcome)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
                (
                    order.partner.name,
                    order.call.name,
                    order.key,
                    order.stored,
                    order.traceparent,
                    due_at,
                    callbacks,
                    outcome,
                ),
            ).fetchone()[0]
        return Promise(seq=seq, due_at=due_at)

    def keep(self, seq: int) -> Event | None:
        """Do what was promised, and write the news of it, in one transaction: neither is lost, neither comes twice."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT partner, call, key, request, traceparent, callbacks, outcome"
                " FROM promise WHERE seq = ? AND state = 'open'",
                (seq,),
            ).fetchone()
            if row is None:
                return None
            partner_name, call, key, request, traceparent, callbacks, outcome = row
            partner = self._partners[partner_name]
            order = Order(
                partner=partner,
                call=partner.call(call),
                key=key,
                content=json.loads(request),
                traceparent=traceparent,
            )
            answer = None
            try:
                refusal = partner.refusal if outcome == "failed" else None
                answer = None if refusal else json.loads(self._do(order).answer)
            except Refusal as changed_its_mind:
                refusal = changed_its_mind
            error = {"code": refusal.code, "message": refusal.message} if refusal else None
            db.execute(
                "UPDATE promise SET state = ?, error = ? WHERE seq = ?",
                ("failed" if error else "done", json.dumps(error) if error else None, seq),
            )
            if not callbacks:
                return None
            event_id = f"evt_{uuid4().hex}"
            news = {
                "event_id": event_id,
                "partner": partner.name,
                "call": call,
                "key": key,
                "outcome": "failed" if error else "succeeded",
                "answer": answer,
                "error": error,
            }
            event = Event(
                event_id=event_id,
                partner=partner.name,
                body=json.dumps(news, ensure_ascii=False),
                owed=callbacks,
            )
            db.execute(
                "INSERT INTO event (event_id, partner, body, owed) VALUES (?, ?, ?, ?)",
                (event.event_id, event.partner, event.body, event.owed),
            )
            return event

    def known(self, partner: Partner, key: str) -> Done | Pending | None:
        """What happened under a key; of two effects the first. Raises the `Refusal` of work that ended so."""
        done = self._db.execute(
            "SELECT answer FROM effect WHERE partner = ? AND key = ? ORDER BY seq LIMIT 1", (partner.name, key)
        ).fetchone()
        if done is not None:
            return Done(done[0])
        promised = self._db.execute(
            "SELECT state, error FROM promise WHERE partner = ? AND key = ? ORDER BY seq DESC LIMIT 1",
            (partner.name, key),
        ).fetchone()
        if promised is None:
            return None
        state, error = promised
        if state == "failed":
            raise Refusal(**json.loads(error))
        return Pending()

    def open_promises(self, key: str | None = None) -> list[Promise]:
        """Acknowledged work that a restarted partner still has to do; all of it, or what it owes under a key."""
        rows = self._db.execute(
            "SELECT seq, due_at FROM promise WHERE state = 'open' AND (:key IS NULL OR key = :key) ORDER BY due_at",
            {"key": key},
        )
        return [Promise(seq=seq, due_at=due_at) for seq, due_at in rows]

    def owed_events(self) -> list[Event]:
        """News that a restarted partner still has to deliver."""
        rows = self._db.execute("SELECT event_id, partner, body, owed FROM event WHERE state = 'owed' ORDER BY rowid")
        return [Event(event_id=row[0], partner=row[1], body=row[2], owed=row[3]) for row in rows]

    def note_delivery(self, event_id: str, *, delivered: bool) -> None:
        """Count an attempt to call back, and a delivery where it was one."""
        self._db.execute(
            "UPDATE event SET attempts = attempts + 1, owed = owed - :one,"
            " state = CASE WHEN owed = :one THEN 'delivered' ELSE state END WHERE event_id = :event_id",
            {"one": int(delivered), "event_id": event_id},
        )

    def give_up(self, event_id: str) -> None:
        """Nobody listens; Caseward has to ask."""
        self._db.execute("UPDATE event SET state = 'given_up' WHERE event_id = ?", (event_id,))

    def entries(self, partner: str | None, key: str | None, *, after: int = 0) -> bytes:
        """Every effect that happened, doubles included, oldest first, as a JSON array; those after a number, if given.

        Reads by a connection of its own, and lets SQLite write the JSON: callable from a thread, while calls go on.
        """
        return self._read(
            "SELECT json_object('number', seq, 'partner', partner, 'call', call, 'key', key, 'at', at,"
            " 'request', json(request), 'answer', json(answer), 'traceparent', traceparent) FROM effect"
            " WHERE seq > :after AND (:partner IS NULL OR partner = :partner) AND (:key IS NULL OR key = :key)"
            " ORDER BY seq",
            {"partner": partner, "key": key, "after": after},
        )

    def events(self, partner: str | None) -> bytes:
        """All news and how their delivery stands, oldest first, as a JSON array."""
        return self._read(
            "SELECT json_object('event_id', event_id, 'partner', partner, 'body', json(body), 'owed', owed,"
            " 'attempts', attempts, 'state', state) FROM event"
            " WHERE (:partner IS NULL OR partner = :partner) ORDER BY rowid",
            {"partner": partner},
        )

    def _read(self, query: str, values: Mapping[str, str | int | None]) -> bytes:
        db = sqlite3.connect(self._file)
        try:
            return f"[{','.join(row[0] for row in db.execute(query, values))}]".encode()
        finally:
            db.close()

    def _standing(self, order: Order) -> Done | Pending | None:
        """What an idempotent partner remembers of the key; the others remember nothing."""
        if not order.partner.idempotent:
            return None
        earlier = self._db.execute(
            "SELECT call, request FROM effect WHERE partner = :partner AND key = :key"
            " UNION ALL SELECT call, request FROM promise WHERE partner = :partner AND key = :key LIMIT 1",
            {"partner": order.partner.name, "key": order.key},
        ).fetchone()
        if earlier is None:
            return None
        if earlier != (order.call.name, order.stored):
            raise KeyReused
        return self.known(order.partner, order.key)

    def _do(self, order: Order) -> Done:
        answer = json.dumps(order.call.do(order.call.request(**order.content)), ensure_ascii=False)
        self._db.execute(
            "INSERT INTO effect (partner, call, key, at, request, answer, traceparent) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                order.partner.name,
                order.call.name,
                order.key,
                datetime.now(UTC).isoformat(timespec="microseconds"),
                order.stored,
                answer,
                order.traceparent,
            ),
        )
        return Done(answer)
