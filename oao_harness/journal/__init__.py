"""The journal: records, their codec, and recordings as files."""
