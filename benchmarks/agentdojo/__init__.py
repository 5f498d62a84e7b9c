"""AgentDojo behind the gate: what policies stop when the agent is fully hijacked. No model is asked."""
