"""`python -m oao_harness` is `oao`."""

from __future__ import annotations

from oao_harness.cli import main

if __name__ == "__main__":
    main(prog_name="oao")
