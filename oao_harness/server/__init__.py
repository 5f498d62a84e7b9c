"""oao as a service: HTTP, server-sent events and a dashboard over the same public API as the command line."""
