"""Bundled policies, one file each, loaded by dotted name."""
