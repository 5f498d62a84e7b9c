"""Another model's name for a LangChain model: a copy of it that sends that name; the user's object is not changed."""

from __future__ import annotations

from typing import Any, Final, cast

from oao_harness.adapters.patching import Arguments, Request
from oao_harness.runtime.overrides import refuse_swap
from oao_hookspecs import Call, ModelCall

__all__ = ["swapping"]

_FIELDS: Final = ("model_name", "model", "model_id")
# What these classes answer with is not chosen by a name.
_NO_PARTNERS: Final = frozenset({"langchain_classic", "langchain_community", "langchain_core", "langchain_tests"})


def swapping(request: Request, model: Any, arguments: Arguments) -> Request:
    """Return a request of a model that can be sent to another one, too.

    Args:
        request: As it was prepared.
        model: The LangChain model.
        arguments: Of the method that was called.
    """
    asked = cast("ModelCall", request.call)

    def swap(judged: Call) -> tuple[Any, Arguments]:
        return _copy(model, asked.name, judged), _named(arguments, judged.name)

    return Request(call=request.call, shape=request.shape, arguments=request.arguments, swap=swap)


def _named(arguments: Arguments, name: str) -> Arguments:
    positional, named = arguments
    return positional, {**named, "model": name} if isinstance(named.get("model"), str) else named


def _copy(model: Any, asked: str, judged: Call) -> Any:
    cls = cast("Any", type(model))
    if not any(_is_partner(base.__module__) for base in cls.__mro__):
        why = f"{cls.__name__} is code of its own, and what it answers with is not chosen by a name"
        refuse_swap(judged, asked, f"{why}; change the agent's code, or leave the model as it is")
    fields = cast("dict[str, object]", vars(model))
    held = [name for name in _FIELDS if name in cls.model_fields and isinstance(fields.get(name), str)]
    if not held or fields.get("deployment_name") is not None:
        why = f"{cls.__name__} has no field that names the model it asks"
        refuse_swap(judged, asked, f"{why}; change the agent's code, or leave the model as it is")
    return model.model_copy(update=dict.fromkeys(held, judged.name))


def _is_partner(module: str) -> bool:
    top = module.partition(".")[0]
    return top.startswith("langchain_") and top not in _NO_PARTNERS
