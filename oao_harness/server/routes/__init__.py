"""The routes of the server, a file for each kind of thing; what they do is the service's."""
