"""What a plugin declares that it cannot do: such tests of a suite must fail, and one that passes is said."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, TypeVar

import pytest

__all__ = ["Declaring", "needs"]

F = TypeVar("F", bound=Callable[..., object])

_NEEDS = "oao_needs"


def needs(capability: str) -> Callable[[F], F]:
    """Mark a test of a suite as one that asks for something which a plugin may declare that it cannot do.

    Passing the test must be proof of the capability: one that is declared absent and passes is an error.

    Args:
        capability: One word, for example `processes`.
    """

    def marked(test: F) -> F:
        setattr(test, _NEEDS, capability)
        return test

    return marked


class Declaring:
    """Base of the conformance suites. What is not declared is required.

    ```python
    class TestMyStore(StoreConformance):
        CANNOT = {"delete": "journals are on a medium that is written once"}
    ```
    """

    CANNOT: ClassVar[Mapping[str, str]] = {}
    """What the plugin cannot do, and why; see `capabilities` for the names."""

    @classmethod
    def capabilities(cls) -> tuple[str, ...]:
        """Return the names of what a plugin may declare that it cannot do, sorted."""
        found = {getattr(getattr(cls, name), _NEEDS, "") for name in dir(cls) if name.startswith("test_")}
        return tuple(sorted(found - {""}))

    @pytest.fixture
    def cannot(self) -> Mapping[str, str]:
        """Return what the plugin declares that it cannot do."""
        return self.CANNOT

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest, cannot: Mapping[str, str]) -> Generator[None]:
        known = self.capabilities()
        for name, reason in cannot.items():
            if name not in known:
                pytest.fail(
                    f"it declares that it cannot {name!r}, which this suite does not ask for; "
                    f"it may declare {', '.join(known) or 'nothing'}",
                    pytrace=False,
                )
            if not reason:
                pytest.fail(
                    f"it declares that it cannot {name!r} and gives no reason; write one sentence", pytrace=False
                )
        capability: str = getattr(request.function, _NEEDS, "")
        if capability not in cannot:
            yield
            return
        reason = f"it declares that it cannot {capability!r}: {cannot[capability]}"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
        with self.failing():
            yield

    def failing(self) -> AbstractContextManager[None]:
        """Return what surrounds a test that is declared to fail; a suite whose tests wait for long waits for less."""
        return nullcontext()
