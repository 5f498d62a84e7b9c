"""A priority queue in one SQLite file, for the workers of one machine."""

from oao_file_queue.scheduler import FileQueue

__all__ = ["FileQueue"]
