"""vcrpy as an interceptor: its patches and its stand-ins for responses, and nothing else of it.

All that is private to vcrpy, or to the clients that it patches, is used in the modules `http_*` beside this one and
nowhere else, and asked for here first. Each library is patched
by itself: one whose patch is broken is not covered, the others are.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import Any, Final, cast

from oao_harness.errors import FrameworkError
from oao_harness.journal.codec import error_line
from pytest_oao.http_connections import enter_connections, group_of
from pytest_oao.http_dispatch import Dispatch
from pytest_oao.http_layer import INSTALL, HttpLayer, missing
from pytest_oao.http_transports import enter_aiohttp, enter_httpx

__all__ = ["find_vcr", "installed"]

# What vcrpy imports; one of them that is broken breaks `import vcr`.
_LIBRARIES: Final = (
    *("botocore", "urllib3", "requests", "httplib2", "tornado", "aiohttp", "httpx", "httpx_curl_cffi", "pyreqwest"),
    "httpx2",
)
# Names of the builder's methods, and what they patch. The later one wins where two patch the same.
_GROUPS: Final = (
    ("_httplib", "http.client"),
    ("_requests", "requests"),
    ("_boto3", "botocore"),
    ("_urllib3", "urllib3"),
    ("_httplib2", "httplib2"),
)
_NEEDED: Final = (
    ("vcr.patch", "CassettePatcherBuilder"),
    ("vcr.patch", "force_reset"),
    ("vcr.stubs", "VCRConnection"),
    ("vcr.stubs", "VCRHTTPResponse"),
    ("vcr.stubs", "serialize_headers"),
)


@functools.cache
def find_vcr() -> tuple[str, ...]:
    """Import vcrpy, without the libraries that break it; return these.

    Raises:
        FrameworkError: It is not installed, or of a version that has not what is used here.
    """
    if missing():
        raise FrameworkError(f"vcrpy is not installed: {INSTALL}")
    hidden: tuple[str, ...] = ()
    try:
        _import_vcr()
    except Exception:  # noqa: BLE001 - whatever a broken library raises
        hidden = _import_without_broken()
    for module, name in _NEEDED:
        if not hasattr(importlib.import_module(module), name):
            raise FrameworkError(f"vcrpy {version('vcrpy')} has no {module}.{name}; install vcrpy>=8.5,<10: {INSTALL}")
    return hidden


def _import_vcr() -> None:
    try:
        importlib.import_module("vcr.patch")
    except BaseException:
        for name in [name for name in sys.modules if name == "vcr" or name.startswith("vcr.")]:
            del sys.modules[name]
        raise


def _import_without_broken() -> tuple[str, ...]:
    """Import vcrpy with as many of the libraries as it can be imported with; return the others."""
    for name in _LIBRARIES:
        # Whole, so that hiding one breaks none that needs it.
        with suppress(Exception):
            importlib.import_module(name)
    hidden = list(_LIBRARIES)
    for name in _LIBRARIES:
        without = [one for one in hidden if one != name]
        with _hidden(without):
            try:
                _import_vcr()
            except Exception:  # noqa: BLE001, S112 - this one is broken; the caller says so
                continue
        hidden = without
        for one in [one for one in sys.modules if one == "vcr" or one.startswith("vcr.")]:
            del sys.modules[one]
    with _hidden(hidden):
        try:
            _import_vcr()
        except Exception as error:
            raise FrameworkError(f"vcrpy {version('vcrpy')} cannot be imported: {error_line(error)}") from error
    return tuple(name for name in hidden if name in sys.modules)


@contextmanager
def _hidden(names: Iterable[str]) -> Generator[None]:
    """Let libraries look as if they were not installed."""
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update(cast("Any", dict.fromkeys(names)))
    try:
        yield
    finally:
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


@contextmanager
def installed(layer: HttpLayer) -> Generator[None]:
    """Hand the requests of all client libraries to a layer; each library by itself.

    Args:
        layer: Decides about them; told which libraries are not covered.
    """
    broken = find_vcr()
    dispatch = Dispatch(layer)
    with ExitStack() as stack:
        builder = importlib.import_module("vcr.patch").CassettePatcherBuilder(dispatch)
        covered: list[tuple[str, Callable[[ExitStack], None]]] = []
        for method, library in _GROUPS:
            if library in broken:
                layer.note_uncovered(f"{library}: vcrpy cannot be imported with it")
                continue
            try:
                covered.append((library, group_of(builder, method)))
            except Exception as error:  # noqa: BLE001 - one broken library must not take the others down
                layer.note_uncovered(f"{library}: {error_line(error)}")
        covered += [(name, functools.partial(enter_httpx, dispatch, name)) for name in ("httpx", "httpx2")]
        covered.append(("aiohttp", functools.partial(enter_aiohttp, dispatch)))
        enter_connections(stack)
        for library, enter in covered:
            with ExitStack() as own:
                try:
                    enter(own)
                except Exception as error:  # noqa: BLE001 - as above
                    layer.note_uncovered(f"{library}: {error_line(error)}")
                    continue
                stack.push(own.pop_all())
        yield
