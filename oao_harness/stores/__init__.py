"""Bundled stores, one file each, loaded by dotted name."""
