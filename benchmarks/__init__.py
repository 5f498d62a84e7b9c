"""Benchmarks: what governance costs, beside the peers. See README.md."""
