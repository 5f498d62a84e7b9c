"""The conformance suites as a command: `pytest --pyargs pytest_oao.testing.conformance --oao-store=pkg:X`.

One module for each kind of plugin; those that no option names are left out. The options are the pytest plugin's,
because pytest reads a package's own conftest too late for options.
"""
