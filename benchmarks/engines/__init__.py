"""The engines of `benchmarks/fleet.py`: each module is one, with a `producer()` and a `worker()`."""
