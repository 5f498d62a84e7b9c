"""What importing the test tools costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pytest_oao.testing


def _printed_by(code: str) -> list[str]:
    root = Path(pytest_oao.testing.__file__).parents[2]
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()


def test_importing_the_package_imports_no_library() -> None:
    """A user who wants one tool pays for one tool."""
    code = (
        "import sys; before = set(sys.modules); import pytest_oao.testing; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(*new - sys.stdlib_module_names)"
    )
    assert _printed_by(code) == ["pytest_oao"]


def test_the_openai_server_needs_the_standard_library_only() -> None:
    """It can be used where nothing but the package is installed."""
    code = (
        "import sys; from pytest_oao.testing import OpenAIServer; "
        "print(*(name for name in ('yaml', 'httpx', 'openai', 'langchain_core') if name in sys.modules))"
    )
    assert _printed_by(code) == []


def test_all_names_are_there_and_no_other() -> None:
    """`__all__` is sorted and true."""
    names = pytest_oao.testing.__all__
    assert names == sorted(names)
    assert all(getattr(pytest_oao.testing, name) is not None for name in names)
    with pytest.raises(AttributeError, match="has no attribute 'Missing'; it has AdapterCase, "):
        _ = pytest_oao.testing.Missing
