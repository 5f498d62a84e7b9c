"""What changes the answer of a LangChain model beside the conversation, without its transport; and what it cost."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from oao_harness.adapters.langchain_messages import plain
from oao_harness.adapters.patching import Arguments
from oao_harness.errors import ConfigError
from oao_harness.runtime.usage import usage_or_estimate
from oao_hookspecs import Call, Json

__all__ = ["model_name", "params_of", "refuse_modified", "usage_or_estimate"]

# What carries a request, not what is asked: keys in any spelling, credentials, observers, the model's own name.
_TRANSPORT: Final = frozenset(
    {
        "base_url",
        "callbacks",
        "custom_get_token_ids",
        "default_headers",
        "default_query",
        "disable_streaming",
        "extra_headers",
        "headers",
        "http_client",
        "ls_structured_output_format",
        "messages",
        "metadata",
        "model",
        "model_id",
        "model_name",
        "n_retries",
        "organization",
        "rate_limiter",
        "run_id",
        "run_manager",
        "stream",
        "stream_options",
        "stream_usage",
        "streaming",
        "tags",
        "tools",
        "verbose",
        "_type",
    }
)
_TRANSPORT_PARTS: Final = (
    "api_base",
    "api_key",
    "base_url",
    "endpoint",
    "password",
    "proxy",
    "retries",
    "secret",
    "timeout",
    "token_provider",
)
_NAMES: Final = ("model_name", "model", "model_id", "deployment_name", "azure_deployment", "repo_id")


def model_name(model: object, given: Mapping[str, Any]) -> str:
    """Return the id of a model: as this call names it, as the model does, or its class's name."""
    if isinstance(named := given.get("model"), str):
        return named
    fields = vars(model)
    # Fields first: asking a pydantic model for what it lacks is slow. Then properties.
    for name in _NAMES:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    for name in _NAMES:
        found = getattr(type(model), name, None)
        value = found.fget(model) if isinstance(found, property) and found.fget is not None else found
        if isinstance(value, str) and value:
            return value
    return type(model).__name__


def params_of(model: object, given: Mapping[str, Any]) -> dict[str, Json]:
    """Return what else changes the answer: the model's own parameters and those of this call.

    Args:
        model: A LangChain language model.
        given: Arguments of the call by name.
    """
    own = cast("Mapping[str, Any]", getattr(model, "_identifying_params", None) or {})
    params: dict[str, Json] = {}
    for name, value in (*((key, item) for key, item in own.items() if _is_plain(item)), *given.items()):
        if value is not None and not _is_transport(name):
            params[name] = plain(value)
    return dict(sorted(params.items()))


@functools.lru_cache(maxsize=1024)
def _is_transport(name: str) -> bool:
    return name in _TRANSPORT or any(part in name for part in _TRANSPORT_PARTS)


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(
            isinstance(key, str) and _is_plain(item) for key, item in cast("Mapping[object, object]", value).items()
        )
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in cast("Iterable[object]", value))
    return value is None or isinstance(value, str | bool | int | float)


def refuse_modified(judged: Call) -> Arguments:
    """Refuse to send a request that a policy modified: LangChain's own objects cannot be made from it.

    Raises:
        ConfigError: Always; the request is not sent.
    """
    raise ConfigError(
        f"model {judged.name!r}: a policy modified the request, and the langchain adapter can apply modifications to "
        "the arguments of tools only; let the policy deny the call, or change the prompt in the agent"
    )
