"""Finding, checking and ordering plugins."""
