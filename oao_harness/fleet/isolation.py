"""Placeholder until the branch `local` is merged."""


async def run_in_process(store_url: str, execution_id: str, *, lease_s: float, limit_s: float | None = None) -> None:
    """Run a job in a process of its own."""
    raise NotImplementedError
