"""Bundled schedulers, one file each, loaded by dotted name."""
