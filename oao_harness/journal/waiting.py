"""The recorded calls of one run that nobody has asked for yet, found by what they ask for.

Looking one up costs the same in a short and in a long recording, also where a thousand of them are identical: a call is
moved once when it becomes free, and looked at once more when it is served.
"""

from __future__ import annotations

import heapq
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import TypeAlias

from oao_harness.journal.recording import RecordedEvent
from oao_harness.journal.renaming import Renaming
from oao_harness.journal.shape import Shape

__all__ = ["WaitingRun"]

_Entry: TypeAlias = tuple[bool, int, int, RecordedEvent]
"""By end, because among equal requests the one that ended first unlocks most of what follows; what was denied comes
last: it was asked for while the others were open, and it was a limit that they had used up."""
_Pattern: TypeAlias = tuple[object, ...]
"""What recorded tokens must be, for one request."""


class _Bucket:
    """The events of a run that ask for the same, as far as their keys tell."""

    def __init__(self) -> None:
        # Latest start first: what becomes free is at the end.
        self.late: list[RecordedEvent] = []
        self.free: list[tuple[RecordedEvent, Shape]] = []
        self._groups: dict[tuple[bool, ...], dict[_Pattern, list[_Entry]]] = {}

    def add(self, event: RecordedEvent) -> None:
        insort(self.late, event, key=lambda one: -one.start)

    def admit(self, event: RecordedEvent, shape: Shape) -> None:
        self.free.append((event, shape))
        for known, groups in self._groups.items():
            _put(groups, known, event, shape)

    def groups(self, known: tuple[bool, ...], waits: Callable[[RecordedEvent], bool]) -> dict[_Pattern, list[_Entry]]:
        """Return the free events by what their tokens are at the places where the live ones are known.

        Args:
            known: Whether the live token at each place stands for a recorded one already.
            waits: Returns False for an event that was served.
        """
        groups = self._groups.get(known)
        if groups is None:
            groups = self._groups[known] = defaultdict(list)
            self.free = [(event, shape) for event, shape in self.free if waits(event)]
            for event, shape in self.free:
                if len(shape.tokens) == len(known):
                    _put(groups, known, event, shape)
        return groups


class WaitingRun:
    """What is left of one recorded run.

    Args:
        name: The run's name in the recording.
        events: All of its events, in recorded order.
        shape_of: Returns the shape of an event's own request.
        in_any_order: True where nothing has to wait for anything.
    """

    def __init__(
        self,
        name: str,
        events: Sequence[RecordedEvent],
        shape_of: Callable[[RecordedEvent], Shape],
        *,
        in_any_order: bool = False,
    ) -> None:
        self.name = name
        self.events = events
        self.looked_at = 0
        """Candidates looked at so far: what a lookup costs."""
        self._shape_of = shape_of
        self._in_any_order = in_any_order
        self._served: set[int] = set()
        self._by_end = sorted(events, key=attrgetter("end"))
        self._first_end = 0
        self._buckets: dict[str, _Bucket] = defaultdict(_Bucket)
        self._keys_are_checked = False
        for event in sorted(events, key=attrgetter("start"), reverse=True):
            self._buckets[event.key].late.append(event)

    def mark_served(self, event: RecordedEvent) -> None:
        """Take an event out, also one that was served as part of another."""
        self._served.add(event.n)

    def waits(self, event: RecordedEvent) -> bool:
        """Return True where nobody has asked for an event yet."""
        return event.n not in self._served

    def left(self) -> Iterator[RecordedEvent]:
        """Return what nobody has asked for yet, in recorded order. Walks the whole run."""
        return (event for event in self.events if event.n not in self._served)

    @property
    def is_over(self) -> bool:
        """True where nothing is left."""
        return len(self._served) == len(self.events)

    def reach(self) -> float:
        """Return the latest start that is free: no unserved event ended before it."""
        if self._in_any_order:
            return math.inf
        while self._first_end < len(self._by_end) and self._by_end[self._first_end].n in self._served:
            self._first_end += 1
        return self._by_end[self._first_end].end if self._first_end < len(self._by_end) else math.inf

    def check_keys(self) -> bool:
        """File what is left by keys made here, not by those that were stored; return False where that was done.

        A person may have edited the file, and another configuration makes other keys.
        """
        if self._keys_are_checked:
            return False
        self._keys_are_checked = True
        left = [event for bucket in self._buckets.values() for event in bucket.late if self.waits(event)]
        for bucket in self._buckets.values():
            bucket.late = []
        for event in sorted(left, key=attrgetter("start"), reverse=True):
            self._buckets[self._shape_of(event).key].late.append(event)
        return True

    def find(self, shape: Shape, renaming: Renaming, lanes: Iterable[tuple[str, str]]) -> RecordedEvent | None:
        """Return the event that a request asks for, or None where none fits.

        Args:
            shape: Of the live request.
            renaming: What its tokens stand for.
            lanes: Where it was made, most telling first; an event of the same lane goes before the others.
        """
        bucket = self._buckets.get(shape.key)
        if bucket is None:
            return None
        self._admit(bucket, shape.key)
        known: list[bool] = []
        pattern: list[object] = [shape.digest]
        first: dict[object, int] = {}
        for place, token in enumerate(shape.tokens):
            meanings = renaming.meanings(token)
            if len(meanings) > 1:
                return self._find_slowly(bucket, shape, renaming)
            known.append(bool(meanings))
            pattern.append(meanings[0] if meanings else first.setdefault(token, place))
        groups = bucket.groups(tuple(known), self.waits)
        for lane in (*lanes, None):
            heap = groups.get((lane, *pattern))
            while heap:
                self.looked_at += 1
                event = heap[0][3]
                if self.waits(event) and not self._is_given_away(event, known, renaming):
                    return event
                # Neither becomes untrue again.
                heapq.heappop(heap)
        return None

    def fitting(self, shape: Shape) -> list[RecordedEvent]:
        """Return what is left that asks for the same but for tokens and order. Walks the whole run."""
        return [event for event in self.left() if self._shape_of(event).digest == shape.digest]

    def _admit(self, bucket: _Bucket, key: str) -> None:
        """Move what has become free to where it is found."""
        reach = self.reach()
        while bucket.late and bucket.late[-1].start <= reach:
            event = bucket.late.pop()
            self.looked_at += 1
            if event.n in self._served:
                continue
            shape = self._shape_of(event)
            if shape.key == key:
                bucket.admit(event, shape)
            else:
                # The stored key is not that of the request: what is in the file is what must match.
                self._buckets[shape.key].add(event)

    def _is_given_away(self, event: RecordedEvent, known: Sequence[bool], renaming: Renaming) -> bool:
        """Return True where something else stands for a token of the event that the request has a new one for."""
        if all(known):
            return False
        tokens = self._shape_of(event).tokens
        return any(renaming.is_taken(token) for token, is_known in zip(tokens, known, strict=True) if not is_known)

    def _find_slowly(self, bucket: _Bucket, shape: Shape, renaming: Renaming) -> RecordedEvent | None:
        """Compare one by one: a live token that means two recorded ones, a rare chance, fits no pattern."""
        self.looked_at += len(bucket.free)
        fitting = (
            event
            for event, one in bucket.free
            if self.waits(event) and one.digest == shape.digest and not renaming.conflicts(shape.tokens, one.tokens)
        )
        return min(fitting, key=attrgetter("denied", "end"), default=None)


def _put(groups: dict[_Pattern, list[_Entry]], known: Sequence[bool], event: RecordedEvent, shape: Shape) -> None:
    first: dict[object, int] = {}
    pattern: list[object] = [shape.digest]
    for place, token in enumerate(shape.tokens):
        pattern.append(token if known[place] else first.setdefault(token, place))
    lanes = (("id", event.call_id), ("in", event.scope), None)
    for lane in lanes:
        if lane is None or lane[1]:
            heapq.heappush(groups[(lane, *pattern)], (event.denied, event.end, event.n, event))
