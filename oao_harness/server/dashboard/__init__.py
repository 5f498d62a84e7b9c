"""The dashboard: pages and live fragments, rendered on the server from the same values that the command line shows."""
