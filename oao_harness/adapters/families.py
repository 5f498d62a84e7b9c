"""Patches of whole class families: a framework's base class, its subclasses, and those that are yet to be written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from oao_harness.adapters.patching import Leaf, govern, is_wrapper, made_here, patching

__all__ = ["Wrapped", "patch_family"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapped:
    """A method of a family that is replaced in a way of its adapter's own."""

    name: str
    wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
    """Returns what stands in its place."""


def patch_family(
    root: type,
    leaves: Iterable[Leaf | Wrapped],
    entries: Iterable[Leaf | Wrapped] = (),
    *,
    governs: Callable[[type], bool] | None = None,
    with_root: bool = False,
) -> None:
    """Govern the leaves of every subclass of a class, of those to come too.

    Args:
        root: A class of the framework, a pydantic one or any other.
        leaves: The methods that leave the framework.
        entries: Public methods of the framework that a user's subclass may override, and so slip under the leaves.
        governs: False for a class whose methods only hand on to another one of the family; None governs all.
        with_root: True where the class itself does the work; False where it only delegates.
    """
    leaves, entries = tuple(leaves), tuple(entries)
    framework = root.__module__.partition(".")[0]

    def patch(cls: type) -> None:
        if governs is not None and not governs(cls):
            return
        with patching:
            for leaf in leaves:
                _patch(cls, root, leaf, is_entry=False)
            if cls.__module__.partition(".")[0] != framework:
                for entry in entries:
                    _patch(cls, root, entry, is_entry=True)

    # Pydantic's runs when the fields of the class are known, and its methods are those that stay.
    hook = "__pydantic_init_subclass__" if hasattr(root, "__pydantic_init_subclass__") else "__init_subclass__"
    with patching:
        own: Any = vars(root).get(hook)
        if own is not None and is_wrapper(own.__func__):
            return

        def init_subclass(cls: Any, /, **kwargs: Any) -> None:
            if own is not None:
                own.__func__(cls, **kwargs)
            else:
                parent = cast("Any", super(root, cls))  # pyright: ignore[reportUnknownArgumentType]
                getattr(parent, hook)(**kwargs)
            patch(cls)

        made_here(init_subclass)
        type.__setattr__(root, hook, classmethod(init_subclass))
        for cls in (*((root,) if with_root else ()), *_descendants(root)):
            patch(cls)


def _patch(cls: type, root: type, leaf: Leaf | Wrapped, *, is_entry: bool) -> None:
    owner = next((base for base in cls.__mro__ if leaf.name in vars(base)), None)
    # A method of a mixin is a leaf of the class that mixes it in; an inherited one is patched where it is defined.
    if owner is None or (owner is not cls and (issubclass(owner, root) or owner in root.__mro__)):
        return
    function = vars(owner)[leaf.name]
    if not callable(function) or is_wrapper(function) or getattr(function, "__isabstractmethod__", False):
        return
    if isinstance(leaf, Wrapped):
        wrapper = leaf.wrap(function)
        made_here(wrapper)
    else:
        wrapper = govern(function, leaf.kind, leaf.prepare, is_entry=is_entry)
    type.__setattr__(cls, leaf.name, wrapper)


def _descendants(cls: type[Any]) -> Iterator[type[Any]]:
    children: list[type[Any]] = type.__subclasses__(cls)
    for child in children:
        yield child
        yield from _descendants(child)
