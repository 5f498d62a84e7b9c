"""Bundled listeners: they hear what is journaled, and change nothing. One file each."""
