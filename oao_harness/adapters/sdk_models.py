"""Another model's name in a request of the `openai` and `anthropic` clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from oao_harness.runtime.overrides import refuse_swap
from oao_hookspecs import Call

__all__ = ["swapped"]


def swapped(options: Any, judged: Call, asked: str) -> Any:
    """Return a client's request that asks another model.

    Args:
        options: The request as the client holds it; it is not changed.
        judged: The call under the name of the other model.
        asked: The model that the request asks.

    Raises:
        RunHalted: The request names its model elsewhere than in its body, such as in the URL.
    """
    update: dict[str, object] = {}
    for field in ("json_data", "extra_json"):
        body = getattr(options, field, None)
        if isinstance(body, Mapping) and isinstance(cast("Mapping[str, object]", body).get("model"), str):
            update[field] = {**cast("Mapping[str, object]", body), "model": judged.name}
    if not update or "/deployments/" in str(options.url):
        why = "the request does not name its model in its body but in its URL, as deployments of clouds do"
        refuse_swap(judged, asked, f"{why}; change the agent's code, or leave the model as it is")
    return options.model_copy(update=update)
