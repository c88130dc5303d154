"""Evidence: the chain that a timeline's entries form, and what an examination of it finds; needs no database.

An entry's hash is SHA-256 over the previous entry's hash (32 bytes of zero before the first) and the entry's canonical
JSON in UTF-8: sorted keys, no spaces, instants in UTC.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, cast

GENESIS = bytes(32)  # the head of a timeline without entries
FORMAT, CHECKPOINT_FORMAT, FORMAT_VERSION = "caseward.evidence", "caseward.checkpoint", 1
RULE = "hash = SHA-256(previous hash, 32 zero bytes before the first, followed by canonical in UTF-8)"
GAPS = 50  # how many entries removed in a row are told apart from a rewritten rest, where all were renumbered

Kind = Literal["edited", "missing", "inserted", "reordered", "renumbered", "unfit", "head", "rewritten"]


@dataclass(frozen=True)
class Link:
    """One entry as it is stored: its number, what its hash covers, and the hash."""

    number: int
    canonical: str
    hash: bytes


@dataclass(frozen=True)
class Chain:
    """A whole timeline as it is stored, with the length and the head that the case keeps."""

    case_id: str
    links: tuple[Link, ...]
    length: int
    head: bytes


@dataclass(frozen=True)
class Finding:
    """Something that does not fit, at the number of an entry."""

    number: int
    kind: Kind
    sentence: str


class NotEvidence(Exception):
    """This is not a file that we can examine."""


def canonical(content: Mapping[str, Any]) -> str:
    """The text that an entry's hash covers."""
    return json.dumps(_as_read(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def linked(previous: bytes, text: str) -> bytes:
    """The hash of an entry with this canonical text behind the entry with the hash `previous`."""
    return hashlib.sha256(previous + text.encode()).digest()


def _as_read(value: Any) -> Any:
    """JSON as Postgres will give it back: it keeps numbers as decimals, so that 1e+16 returns as an integer."""
    match value:
        case dict():
            members = cast("dict[str, Any]", value)
            return {name: _as_read(member) for name, member in members.items()}
        case list() | tuple():
            return [_as_read(member) for member in cast("list[Any]", value)]
        case float() if not value:
            return 0.0  # without a sign
        case float() if "e+" in repr(value):
            return int(Decimal(repr(value)))
        case _:
            return value


def examine(chain: Chain) -> list[Finding]:
    """Everything that does not fit, in order; an empty list is a whole chain.

    What it can't see is a chain that was made anew from some entry to its end, with all hashes and the head: only a
    head that was kept elsewhere shows that, see `compare`.
    """
    return _Examination(chain).findings()


class _Examination:
    """Goes along the chain from place to place, and where an entry does not fit asks what must have been done."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.rows = deque(sorted(chain.links, key=lambda link: link.number))
        self.found: list[Finding] = []
        self.place = 1
        """The number that the next entry had when it was written."""
        self.before: bytes | None = None
        self.previous: bytes | None = GENESIS
        """The hash of the entry before; None behind a gap."""
        self.displaced: list[Link] = []
        """Entries that did not fit where they stood: moved here from elsewhere, or never written by us."""
        self.last: Link | None = None
        self.shift = 0
        """By how much the entries from here on were renumbered, as far as that was told."""
        self.head_seen = chain.head == GENESIS and chain.length == 0

    def findings(self) -> list[Finding]:
        rows = self.rows
        while rows:
            moved = (link for link in self.displaced if self._fits(link, self.place))
            found = None if self._fits(rows[0], self.place) else next(moved, None)
            if found is not None:
                self.displaced.remove(found)
                self._say(found.number, "reordered", f"entry {found.number} was entry {self.place}: it was moved")
                self._accept(found)
            else:
                self._look(rows)
        for link in self.displaced:
            self._say(link.number, "inserted", f"entry {link.number} was inserted")
        self._look_at_the_end()
        return sorted(self.found, key=lambda finding: finding.number)

    def _look(self, rows: deque[Link]) -> None:
        """Take the next entry, or put it aside; where it does not fit, say what was done."""
        link, following = rows[0], rows[1] if len(rows) > 1 else None
        number, place = link.number, self.place
        if number < 1 or (not self._fits(link, place) and following is not None and self._fits(following, place)):
            self.displaced.append(rows.popleft())
            self.shift += following is not None and number > 0
            return
        if self._fits(link, place):
            if number != place + self.shift:
                self._say(number, "renumbered", f"entry {number} was entry {place}: it was renumbered")
                self.shift = number - place
        elif self.last is not None and self.before and _fits(self.before, link, place - 1):
            self._say(self.last.number, "inserted", f"entry {self.last.number} was inserted")
            self.place -= 1
            self.shift = number - self.place
        elif number > place + self.shift:
            self._say(place, "missing", _missing(place, number - self.shift - 1))
            self.place, self.previous = number - self.shift, None  # what it was chained to is gone
        elif self._continues(link, following, place + 1):
            self._say(number, "edited", _edited(number))
        elif not self._fill_a_gap(link, following):
            elsewhere = next((other for other in rows if self._fits(other, place)), None)
            if elsewhere is not None:
                rows.remove(elsewhere)
                text = f"entry {elsewhere.number} was entry {place}: it was moved"
                self._say(elsewhere.number, "reordered", text)
                self._accept(elsewhere)
                return
            if not (self.head_seen and place > self.chain.length):  # behind the end: told there
                where = f"entry {number - 1}" if number > 1 else "the beginning"
                self._say(number, "unfit", f"entry {number} does not follow {where}")
        self._accept(rows.popleft())

    def _fill_a_gap(self, link: Link, following: Link | None) -> bool:
        """Entries before this one are gone, and it and the rest have got other numbers."""
        for gap in range(1, GAPS):
            if self._continues(link, following, self.place + 1 + gap):
                sentence = f"{_missing(self.place, self.place + gap - 1)}, and the rest was renumbered"
                self._say(link.number, "missing", sentence)
                self.place += gap
                self.shift = link.number - self.place
                return True
        return False

    def _fits(self, link: Link, place: int) -> bool:
        return self.previous is not None and _fits(self.previous, link, place)

    def _continues(self, link: Link, following: Link | None, place: int) -> bool:
        """The entry behind this one was chained to it, so that its hash is one that we wrote."""
        if following is not None:
            return _fits(link.hash, following, place)
        return link.hash == self.chain.head and place == self.chain.length + 1

    def _accept(self, link: Link) -> None:
        self.before, self.previous, self.last = self.previous, link.hash, link
        if self.place == self.chain.length and link.hash == self.chain.head:
            self.head_seen = True
        self.place += 1

    def _look_at_the_end(self) -> None:
        length, places = self.chain.length, self.place - 1
        if places < length:
            self._say(places + 1, "missing", f"{_missing(places + 1, length)}: the end was cut off")
        elif places > length and self.head_seen:
            for number in range(length + 1, places + 1):
                self._say(number, "inserted", f"entry {number} was inserted behind the end")
        elif not self.head_seen:
            at = max(length, places)
            self._say(at, "head", f"the case's head is not the hash of entry {at}: one of the two was replaced")

    def _say(self, number: int, kind: Kind, sentence: str) -> None:
        self.found.append(Finding(number, kind, sentence))


def _missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"


def _edited(number: int) -> str:
    unless = f" (or entry {number - 1} was replaced together with its own)" if number > 1 else ""
    return f"entry {number} was edited: its content does not give its hash{unless}"


def _fits(previous: bytes, link: Link, place: int) -> bool:
    text = link.canonical if link.number == place else _numbered(link.canonical, place)
    return linked(previous, text) == link.hash


def _numbered(text: str, number: int) -> str:
    """The canonical text as it was when the entry had this number."""
    content = json.loads(text)
    return canonical({**content, "number": number}) if isinstance(content, dict) else text


def compare(chain: Chain, *, length: int, head: bytes) -> list[Finding]:
    """What was done to a chain since it had this length and head: nothing, where the entry of that number has it."""
    if length == 0:
        return []
    then = next((link for link in chain.links if link.number == length), None)
    if then is None:
        return [Finding(length, "rewritten", f"entry {length} was there, and is gone")]
    if then.hash != head:
        sentence = f"entry {length} is not the one it was: it, or something before it, was rewritten since"
        return [Finding(length, "rewritten", sentence)]
    return []


def read_evidence(document: Any) -> Chain:
    """The chain of an evidence file. Raises NotEvidence."""
    try:
        if (document["format"], document["format_version"]) != (FORMAT, FORMAT_VERSION):
            message = f"format {document['format']} {document['format_version']} is not {FORMAT} {FORMAT_VERSION}"
            raise NotEvidence(message)
        case_id = str(document["case"]["case_id"])
        links = tuple(
            Link(int(entry["number"]), str(entry["canonical"]), bytes.fromhex(entry["hash"]))
            for entry in document["timeline"]
        )
        chain = Chain(case_id, links, int(document["chain"]["entries"]), bytes.fromhex(document["chain"]["head"]))
        _check_texts(chain)
    except (KeyError, TypeError, ValueError) as fault:
        message = f"not an evidence file ({type(fault).__name__}: {fault})"
        raise NotEvidence(message) from fault
    return chain


def _check_texts(chain: Chain) -> None:
    for link in chain.links:
        content = json.loads(link.canonical)
        if content["number"] != link.number or content["case_id"] != chain.case_id:
            message = f"the canonical text at {link.number} is of entry {content['number']} of {content['case_id']}"
            raise ValueError(message)


def checkpoint(chains: Iterable[Chain], *, made_at: str) -> dict[str, Any]:
    """The heads of many cases, to be kept where nobody who can write to the database can write."""
    heads = {chain.case_id: {"entries": chain.length, "head": chain.head.hex()} for chain in chains}
    return {"format": CHECKPOINT_FORMAT, "format_version": FORMAT_VERSION, "made_at": made_at, "heads": heads}


def read_checkpoint(document: Any) -> dict[str, tuple[int, bytes]]:
    """Length and head of each case of a checkpoint. Raises NotEvidence."""
    try:
        if (document["format"], document["format_version"]) != (CHECKPOINT_FORMAT, FORMAT_VERSION):
            message = f"format {document['format']} {document['format_version']} is not {CHECKPOINT_FORMAT}"
            raise NotEvidence(message)
        return {
            str(case_id): (int(kept["entries"]), bytes.fromhex(kept["head"]))
            for case_id, kept in document["heads"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        message = f"not a checkpoint ({type(fault).__name__}: {fault})"
        raise NotEvidence(message) from fault


def told(findings: Sequence[Finding]) -> str:
    """Findings in words, one a line."""
    return "\n".join(finding.sentence for finding in findings)
