"""The machine: one orchestrator, one gate, one run at a time per `Run`."""
