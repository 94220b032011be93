"""The site: `make docs` writes it to docs/_build, warnings are errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebomlc import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "ebomlc"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

default_role = "literal"  # docstrings say `name`
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = False

html_theme = "furo"
html_title = f"ebomlc {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

ELSEWHERE = {"../results/LOG.md": "log.md", "../benchmarks/README.md": "benchmarks.md"}
"""Files that pages link to where they lie in the repository, and the pages of the site that show them."""


def link_to_pages(app: Sphinx, page: str, source: list[str]) -> None:
    """Turn links to files outside of docs/ into links to pages; what a page includes passes by here as well."""
    for file, shown in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({file})", f"]({shown})")


def setup(app: Sphinx) -> None:
    """Register what Sphinx calls."""
    app.connect("source-read", link_to_pages)
