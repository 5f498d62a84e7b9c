"""Bundled adapters: one file for each kind of agent, loaded by dotted name."""
