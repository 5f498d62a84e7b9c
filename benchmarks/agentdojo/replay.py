"""Replays a user's task under every configuration, benign and under every attack. The unit of work of one process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Final

from .configurations import CONFIGURATIONS
from .hijacked import ORDERS, Order, Result, play
from .suites import Pair, Scores, attacked_pairs, suite_of

__all__ = ["Job", "jobs_of", "play_job", "play_jobs"]


@dataclass(frozen=True, slots=True)
class Job:
    """One user task."""

    suite: str
    user: str
    configurations: Sequence[str]
    orders: Sequence[Order] = ORDERS
    injected: Sequence[bool] = (False, True)


Played = list[tuple[str, bool, Result]]
"""Configuration, whether the attacker's text was there, and the result."""


def jobs_of(
    suites: Iterable[str],
    configurations: Sequence[str],
    orders: Sequence[Order] = ORDERS,
    injected: Sequence[bool] = (False, True),
) -> list[Job]:
    """Return one job for every user task of the suites."""
    return [
        Job(suite, user, configurations, orders, injected) for suite in suites for user in suite_of(suite).user_tasks
    ]


def play_job(job: Job) -> Played:
    """Play one user task: benign, and with every attack in every order, under every configuration."""
    user = suite_of(job.suite).user_tasks[job.user]
    pairs = [pair for pair in attacked_pairs([job.suite]) if pair.user is user]
    scores = Scores()
    played: Played = []
    for configuration in CONFIGURATIONS:
        if configuration.name not in job.configurations:
            continue
        policies = configuration.policies(job.suite, user)
        for injected in job.injected:
            if injected and not configuration.reads:
                continue
            found = [play(Pair(job.suite, user), policies, scores, injected=injected, asks=configuration.asks)]
            for pair in pairs:
                found += [
                    play(pair, policies, scores, order=order, injected=injected, asks=configuration.asks)
                    for order in job.orders
                ]
            played += [(configuration.name, injected, result) for result in found]
    return played


_WORKERS: Final = os.cpu_count() or 1


def play_jobs(jobs: Sequence[Job], advance: Callable[[], object], workers: int = _WORKERS) -> Played:
    """Play jobs in processes of their own.

    Args:
        jobs: What to play.
        advance: Called when one is done.
        workers: How many processes; 1 plays in this one.
    """
    played: Played = []
    if workers <= 1:
        for job in jobs:
            played += play_job(job)
            advance()
        return played
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(play_job, job) for job in jobs]):
            played += done.result()
            advance()
    return played
