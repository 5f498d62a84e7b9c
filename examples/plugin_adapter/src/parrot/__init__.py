"""Parrot, a framework that was made up for this example. It knows nothing of oao.

```python
agent = parrot.Agent(parrot.Model("polly", base_url), tools=[add])
agent.start("what is 1 + 2?")
```
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

__version__ = "2.1"
__all__ = ["Agent", "Model"]


@dataclass
class Model:
    """A model that speaks OpenAI's protocol.

    Args:
        name: Of the model.
        base_url: Where it is.
    """

    name: str
    base_url: str

    def ask(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
        """Send the conversation; return the answer as it came."""
        body = json.dumps({"model": self.name, "messages": messages, **({"tools": tools} if tools else {})}).encode()
        url, head = f"{self.base_url}/chat/completions", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@dataclass
class Agent:
    """Asks a model, and does what it asks for, until it asks for nothing more.

    Args:
        model: The model.
        tools: Functions with a docstring.
    """

    model: Model
    tools: Sequence[Callable[..., Any]] = field(default_factory=list)

    def start(self, task: str) -> str:
        """Do the task; return the last answer."""
        messages: list[dict[str, Any]] = [{"role": "user", "content": task}]
        offered = [{"type": "function", "function": {"name": tool.__name__, "parameters": {}}} for tool in self.tools]
        while True:
            said = self.model.ask(messages, offered)["choices"][0]["message"]
            messages.append(said)
            if not said.get("tool_calls"):
                return str(said["content"])
            for call in said["tool_calls"]:
                result = self.use(call["function"]["name"], json.loads(call["function"]["arguments"]), call["id"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    def use(self, name: str, arguments: dict[str, Any], call_id: str) -> str:
        """Call a tool; what it raises is told to the model."""
        tool = next(tool for tool in self.tools if tool.__name__ == name)
        try:
            return str(tool(**arguments))
        except Exception as error:
            return f"error: {error}"
