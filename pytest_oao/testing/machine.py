"""x."""


class AgentMachine:
    """x."""
