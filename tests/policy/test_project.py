"""Which policy a project uses where nobody names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from oao_harness import ConfigError, load_policy
from oao_harness.policy.project import find_project_policy


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a folder in it; the folder is the working folder."""
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / "sub").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.oao]\npolicy = 'outside'\n")
    monkeypatch.chdir(tmp_path / "repo" / "sub")
    return tmp_path / "repo"


@pytest.mark.parametrize(
    ("text", "policy", "source"),
    [
        ("[tool.oao]\npolicy = 'strict'\n", "strict", "pyproject.toml:2"),
        ("[tool.oao]\npolicy = 'oao.toml'\n", "oao.toml", "pyproject.toml:2"),
        ("[tool.oao]\npolicy = 'my_module:policy'\n", "my_module:policy", "pyproject.toml:2"),
        ("[project]\nname = 'x'\n[tool.oao.policy.limits]\nmax_steps = 3\n", "pyproject.toml", "pyproject.toml:3"),
    ],
)
def test_what_pyproject_names(root: Path, text: str, policy: str, source: str) -> None:
    """A name as it is; a file relative to the pyproject.toml that names it; a table means that file itself."""
    here = root / "sub" / "pyproject.toml"
    here.write_text(text)
    found = find_project_policy()
    assert found is not None
    assert (found.policy, found.source) == (policy, source)

    here.rename(root / "pyproject.toml")
    found = find_project_policy()
    assert found is not None
    wanted = policy if ":" in policy or not policy.endswith("toml") else str(root / policy)
    assert (found.policy, found.source.rpartition("/")[2]) == (wanted, source)


def test_the_search_ends_at_the_repository(root: Path) -> None:
    """What lies outside of it belongs to somebody else; a pyproject.toml without a word about oao is passed over."""
    assert find_project_policy() is None
    (root / "sub" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert find_project_policy() is None
    (root / "pyproject.toml").write_text("[tool.oao]\npolicy = 'strict'\n")
    assert find_project_policy().policy == "strict"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.oao]\npolcy = 'strict'\n", r"pyproject\.toml:2: \[tool\.oao\]: unknown key 'polcy'; did you mean"),
        ("[tool.oao]\npolicy = 3\n", r"pyproject\.toml:2: policy is 3; give a name"),
        ("[tool]\noao = 3\n", r"pyproject\.toml:2: \[tool\.oao\] is no table"),
        ("[tool.oao\n", r"pyproject\.toml:1: this is not TOML"),
    ],
)
def test_mistakes_have_a_line(root: Path, text: str, said: str) -> None:
    """A typing error must not leave a project without its policy."""
    (root / "sub" / "pyproject.toml").write_text(text)

    with pytest.raises(ConfigError, match=said):
        find_project_policy()


def test_a_policy_inside_of_pyproject(root: Path) -> None:
    """Lines are those of pyproject.toml; mistakes in other tables are not ours."""
    path = root / "sub" / "pyproject.toml"
    path.write_text("[project]\nnmae = 1\n[tool.oao.policy]\nmode = 'observe'\n[[tool.oao.policy.rule]]\nname = 'x'\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml:5: \[\[rule\]\] 'x': nothing happens"):
        load_policy("pyproject.toml")
    path.write_text("[tool.oao.policy.limits]\nmax_steps = 3\n")
    assert load_policy("pyproject.toml").limits.max_steps == 3
    path.write_text("[project]\n")
    with pytest.raises(ConfigError, match=r"there is no table \[tool\.oao\.policy\]"):
        load_policy("pyproject.toml")
