"""How the documentation is built: `sphinx-build -W -n docs OUT` (dependency group `docs`)."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.shell import BashSessionLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_HERE = Path(__file__).parent
# What is described is the checkout that the pages are in, whatever is installed.
sys.path[:0] = [str(_HERE / "_ext"), str(_HERE.parent), str(_HERE.parent / "hookspecs")]

project = "oao"
author = "the oao authors"
copyright = f"2026, {author}"  # noqa: A001 - the name that Sphinx reads
release = version = installed("oao-harness")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "changes",
    "names",
]
exclude_patterns = ["_build", "changes"]
nitpicky = True
# In docstrings too, one backquote is code.
default_role = "code"

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 4

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False

# A prompt is not part of what is copied, and neither is what a command prints.
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# Servers on the reader's own machine.
linkcheck_ignore = [r"http://(localhost|127\.0\.0\.1)[:/]"]
linkcheck_timeout = 20
linkcheck_retries = 3

html_theme = "furo"
html_title = "oao"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_logo": "logo-light.svg",
    "dark_logo": "logo-dark.svg",
    # Fonts of the reader's system: a page asks nothing of other servers.
    "light_css_variables": {
        "color-brand-primary": "#1d5c63",
        "color-brand-content": "#1d5c63",
        "font-stack": "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif",
        "font-stack--monospace": "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace",
        "api-font-size": "var(--font-size--small)",
    },
    "dark_css_variables": {
        "color-brand-primary": "#9fd8dc",
        "color-brand-content": "#9fd8dc",
    },
}


def setup(app: Sphinx) -> None:
    """Name the session that a page starts and keeps: a test plays it, readers see a terminal."""
    app.add_lexer("serve", BashSessionLexer)
