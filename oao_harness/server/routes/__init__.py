"""The routes of the API, one module for each thing that they are about. They say how an operation looks over HTTP."""
