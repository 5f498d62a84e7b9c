"""What a policy file remembers of one run: counts, labels, and what its sources said. Guarded by its own lock."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from oao_harness.policy.sequence import Counts
from oao_harness.policy.sources import Index

__all__ = ["Memory"]


class Memory:
    """The state of one policy in one run.

    Args:
        sequences: How many sequence rules there are.
        sources: Which sources are read, as the file writes them: `task`, `tool:NAME`.
    """

    def __init__(self, sequences: int, sources: Sequence[str]) -> None:
        self.lock = threading.Lock()
        self.counts = Counts([0] * sequences)
        self.labels: frozenset[str] = frozenset()
        """Only grows."""
        self.sources = {source: Index() for source in sources}
        self.knows_task = False

    def mark(self, labels: Sequence[str]) -> None:
        """Give the run labels; it never loses them."""
        if not self.labels.issuperset(labels):
            with self.lock:
                self.labels = self.labels.union(labels)
