"""Configuration of the documentation; build with ``sphinx-build -W docs docs/_build/html``."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from skqeq import QEq

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "skqeq"
author = "The skqeq developers"
project_copyright = author
release = version = installed_version("skqeq")

# Default values that pages quote.
radius_scale = QEq().radius_scale
rst_epilog = f".. |radius_scale| replace:: {radius_scale:g}"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "native_math",
    "markdown_changelog",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
default_role = "py:obj"

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"  # the list of methods has no room for the class

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "subsection_order": "gallery_order.by_section",
    "within_subsection_order": "gallery_order.by_topic",
    "reset_modules": ("matplotlib", "gallery_order.set_colors"),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_signature": False,
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skqeq",),
    "inspect_global_variables": False,
}

html_math_renderer = "native"
html_theme = "pydata_sphinx_theme"
html_title = f"skqeq {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sourcelink = False
# Pages of their own have nothing to navigate to; the list of their sections is on the right.
pages = (
    *("install", "tour", "theory", "accuracy", "reproductions", "benchmarks"),
    *("contributing", "changelog"),
)
html_sidebars = {page: [] for page in pages}
html_theme_options = {
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
