"""A journal's chain of hashes: what is found, what is no damage, and what redactions say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from oao_harness import DamagedError
from oao_harness.journal.chain import Chain, verify
from oao_harness.journal.redacting import declaration
from oao_hookspecs import Record, Store, digest_of, link, without_hash


def journal(store: Store, run: str = "run", count: int = 6) -> list[Record]:
    """A run of that many records, the last of which ends it."""
    epoch = store.claim(run)
    store.append(
        run, epoch, {"v": 1, "seq": 1, "type": "run.started", "at": 1.0, "execution_id": run, "agent": "a", "task": "x"}
    )
    for seq in range(2, count):
        store.append(run, epoch, {"v": 1, "seq": seq, "type": "note", "at": 1.0 * seq, "text": f"secret {seq}"})
    end = {"v": 1, "seq": count, "type": "run.finished", "at": 9.0, "status": "SUCCESS", "totals": {}}
    store.append(run, epoch, end)
    return list(store.read(run))


def redact(store: Store, *seqs: int, run: str = "run", by: str = "alice", text: str = "-") -> list[Record]:
    """Puts other texts in place of records, as `oao redact` does."""
    records = [without_hash(one) for one in store.read(run)]
    replaced: dict[int, Record] = {}
    for seq in seqs:
        old = records[seq - 1]
        replaced[seq] = {**old, "text": text, "redacted": old.get("redacted", digest_of(old))}
    told = {"v": 1, "seq": len(records) + 1, "type": "redaction", "at": 20.0, **declaration(replaced, by, "why")}
    store.rewrite(run, store.claim(run), replaced, told)
    return list(store.read(run))


def why(chain: Chain) -> tuple[int, str]:
    assert chain.damage is not None
    return chain.damage.seq, chain.damage.why


def test_a_journal_as_it_was_written_is_intact(store: Store) -> None:
    """Count, head, and that the run came to its end."""
    records = journal(store)
    chain = verify(records, "run")
    assert (chain.damage, chain.count, chain.complete, chain.redacted) == (None, 6, True, ())
    assert chain.head == records[-1]["hash"]
    assert verify([]).head == ""


def test_an_open_run_is_intact_and_not_complete(store: Store) -> None:
    """Where the last record is not the end, nothing is damaged."""
    chain = verify(journal(store)[:4])
    assert (chain.damage, chain.complete, chain.count) == (None, False, 4)


@pytest.mark.parametrize("seq", range(1, 7))
def test_a_changed_record_is_found_wherever_it_stands(store: Store, seq: int) -> None:
    """A field more, a value changed: the first record that is not what was written."""
    records = journal(store)
    records[seq - 1] = {**records[seq - 1], "at": 5.5}
    assert why(verify(records)) == (seq, "its hash does not follow from the one before it: it was changed")


@pytest.mark.parametrize("seq", range(1, 6))
def test_a_missing_record_is_found(store: Store, seq: int) -> None:
    """Its number, and what stands in its place."""
    records = journal(store)
    del records[seq - 1]
    assert why(verify(records)) == (seq, f"it is missing: the next one is record {seq + 1}")


def test_records_that_were_swapped_doubled_or_renumbered_are_found(store: Store) -> None:
    """Order is part of what was written."""
    records = journal(store)
    assert why(verify([records[0], records[2], records[1]]))[0] == 2
    assert why(verify([*records[:3], *records[2:]])) == (4, "another record stands in its place, numbered 3")
    assert why(verify([*records[:2], {**records[3], "seq": 3}]))[0] == 3


def test_a_record_without_a_hash_and_one_that_cannot_be_read_are_damage(store: Store) -> None:
    """Both are said with their number, and nothing crashes."""
    records = journal(store)
    assert why(verify([*records[:2], without_hash(records[2])]))[0] == 3

    def broken() -> Iterator[Record]:
        yield from records[:2]
        raise DamagedError("a record is not JSON")

    chain = verify(broken())
    assert why(chain) == (3, "a record is not JSON")
    assert chain.count == 2


def test_another_runs_journal_under_this_id_is_damage(store: Store) -> None:
    """A whole journal that is in order by itself, in the wrong place."""
    assert why(verify(journal(store, "other"), "run"))[0] == 1


def test_a_journal_that_was_written_anew_is_only_found_by_a_hash_from_before(store: Store) -> None:
    """The limits of a chain, and what a noted head is good for."""
    records = journal(store)
    noted = str(records[3]["hash"])
    assert verify(records).place_of(noted) == 4
    assert verify(records).place_of(noted[:12]) == 4
    forged: list[Record] = []
    previous = ""
    for record in records:
        changed = {**without_hash(record), "at": 7.0}
        previous = link(previous, digest_of(changed))
        forged.append({**changed, "hash": previous})
    assert verify(forged).damage is None
    assert verify(forged).place_of(noted) is None


def test_a_redaction_is_no_damage_and_says_who_and_why(store: Store) -> None:
    """The hashes of all other records stay what they were."""
    before = journal(store)
    after = redact(store, 2, 4)
    chain = verify(after)
    assert chain.damage is None
    assert chain.complete
    assert chain.hashes[:6] == tuple(str(one["hash"]) for one in before)
    assert [(one.seq, one.type, one.by, one.note, one.at, one.declared_in) for one in chain.redacted] == [
        (2, "note", "alice", "why", 20.0, 7),
        (4, "note", "alice", "why", 20.0, 7),
    ]
    assert "secret 2" not in str(after)


def test_redacting_twice_counts_the_last_time(store: Store) -> None:
    """The first redaction keeps vouching for what the second one left alone."""
    journal(store)
    redact(store, 2, 4)
    chain = verify(redact(store, 4, 5, by="bob", text="?"))
    assert chain.damage is None
    assert [(one.seq, one.by, one.declared_in) for one in chain.redacted] == [
        (2, "alice", 7),
        (4, "bob", 8),
        (5, "bob", 8),
    ]


def test_a_redaction_can_be_redacted(store: Store) -> None:
    """Where its note held what must go; a later redaction vouches for it then."""
    journal(store)
    redact(store, 2)
    records = [without_hash(one) for one in store.read("run")]
    replaced = {7: {**records[6], "note": "-", "redacted": digest_of(records[6])}}
    told: Record = {"v": 1, "seq": 8, "type": "redaction", "at": 21.0, **declaration(replaced, "bob", "")}
    store.rewrite("run", store.claim("run"), replaced, told)

    chain = verify(store.read("run"))

    assert chain.damage is None
    assert [(one.seq, one.by, one.note) for one in chain.redacted] == [(2, "alice", "-"), (7, "bob", "")]


def tampered(records: list[Record], seq: int, **fields: Any) -> list[Record]:
    return [{**one, **fields} if one["seq"] == seq else one for one in records]


def test_what_nobody_declared_is_damage(store: Store) -> None:
    """A replacement without a redaction, one changed after it, one taken back, and one with a forged redaction."""
    before = journal(store)
    undeclared = tampered(before, 3, text="-", redacted=digest_of(before[2]))
    assert why(verify(undeclared)) == (3, "something was put in its place, and no redaction says so")
    after = redact(store, 3)
    assert why(verify(tampered(after, 3, text="other"))) == (
        3,
        "it is not what the redaction in record 7 put in its place",
    )
    taken_back = [before[2] if one["seq"] == 3 else one for one in after]
    assert why(verify(taken_back)) == (3, "it is not what the redaction in record 7 put in its place")
    # A redaction that says that it was redacted, but for which no later one vouches, declares nothing.
    forged = {**without_hash(after[6]), "records": [], "redacted": digest_of(after[6]), "hash": after[6]["hash"]}
    assert why(verify([*after[:6], forged]))[0] == 3
