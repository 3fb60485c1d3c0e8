"""The site: ``python -m sphinx -W docs build/site`` with the extra ``docs``; runs every notebook.

A second build in the same folder runs only the notebooks that have changed; ``-E`` runs them all.
Sphinx reads below ``docs`` only, so the first build puts a link there, ``docs/notebooks``; Windows
allows that in its Developer Mode.

Two environment variables say what is known only where the site is published:

- ``IGC_REF_REPOSITORY``: the address of the repository, https://github.com/OWNER/NAME. Without it
  links to files that are not on the site are plain text, and none lead to Colab and Binder.
- ``IGC_REF_LITE=1``: ``lite/`` beside the pages holds a JupyterLite build with the notebooks.

Nothing is loaded from elsewhere. On 2026-11-26 the heaviest page, notebook 07, weighed 0.70 MB, and
the site 6.7 MB (without ``.doctrees``, which Sphinx keeps for the next build).
"""

import os
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert
from nbclient.output_widget import OutputWidget
from sphinx import addnodes
from sphinx.util import logging

import igc_ref

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REPOSITORY = os.environ.get("IGC_REF_REPOSITORY", "").rstrip("/")
LITE = bool(os.environ.get("IGC_REF_LITE"))
EXPLORER = HERE / "explorer.html"
NOTEBOOKS = HERE / "notebooks"
if not NOTEBOOKS.exists():
    NOTEBOOKS.symlink_to(Path("..", "notebooks"), target_is_directory=True)

project = "igc_ref"
author = "The igc_ref founders"
release = igc_ref.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["README.md", "weights", "**/.ipynb_checkpoints"]  # index.md includes README.md
templates_path = ["templates"]

html_theme = "furo"
html_title = "igc_ref"
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_extra_path = ["explorer.html"]
html_sourcelink_suffix = ""  # _sources/notebooks/X.ipynb is the notebook to download
html_math_renderer = "mathml"  # every browser shows it, without JavaScript from elsewhere

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_timeout = 300  # seconds a cell; kernels are compiled in some
nb_execution_show_tb = True  # in the warning that a notebook failed, which -W makes an error
nb_ipywidgets_js = {}
nb_merge_streams = True
# nbclient tells the kernel what a widget shows; the reply that comes in meanwhile is lost at times,
# and the build waits for it. Nothing here reads what it tells.
OutputWidget.send = lambda *arguments, **named: None  # noqa: ARG005
os.environ["IGC_REF_DATA_URL"] = ""  # no notebook downloads anything here
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the matrices are small

autosummary_ignore_module_all = False
autodoc_typehints = "none"  # numpydoc's sections say them in words
default_role = "py:obj"
numpydoc_show_class_members = False


def is_relative_link(node):
    """Say whether MyST made this node from a link without https."""
    return isinstance(node, nodes.Element) and node.get("reftype") == "myst"


def map_links(app, doctree):
    """Point the repository's relative links to the site's pages, or into the repository."""
    pages = {Path(app.env.doc2path(name)).resolve(): name for name in app.env.found_docs}
    pages[HERE / "README.md"] = "index"
    for node in list(doctree.findall(is_relative_link)):
        path, _, anchor = node["reftarget"].partition("#")
        if node.source is None:
            continue  # a heading that this page does not have: MyST says so
        here = HERE if node["refdomain"] == "doc" else Path(node.source).resolve().parent
        target = (here / path).resolve()
        if node["refdomain"] == "doc":  # MyST has removed its suffix
            both = (Path(f"{target}{suffix}") for suffix in (".md", ".ipynb"))
            target = next(filter(Path.exists, both), target)
        if page := pages.get(target):
            keep = {"refdoc": node["refdoc"], "refexplicit": node["refexplicit"]}
            link = addnodes.pending_xref(
                refdomain="doc", reftype="myst", reftarget=page,
                reftargetid=node.get("reftargetid") or anchor or None, **keep,
            )  # fmt: skip
        elif target == EXPLORER:
            page = HERE / app.env.docname
            link = nodes.reference(refuri=os.path.relpath(EXPLORER, page.parent))
        elif not path or not target.exists():
            continue  # MyST says what is wrong with it
        elif REPOSITORY:
            link = nodes.reference(refuri=f"{REPOSITORY}/blob/main/{target.relative_to(ROOT)}")
        else:
            link = nodes.inline()
        link += node.children
        node.replace_self(link)


def drop_widgets(app, doctree):
    """Put a sentence where Jupyter has sliders; drop their state, which nothing here reads."""
    docname = app.env.docname
    for bundle in list(doctree.findall(nodes.container)):
        kinds = [child.get("mime_type", "") for child in bundle if isinstance(child, nodes.Element)]
        if any("widget-view" in kind for kind in kinds):
            words = "In Jupyter, controls stand here; this page shows the figure for one setting."
            bundle.replace_self(nodes.paragraph("", "", nodes.emphasis("", words)))
    getattr(app.env, "nb_metadata", {}).get(docname, {}).get("js_files", {}).clear()


def skip_fields(app, what, name, obj, skip, options):  # noqa: ARG001
    """Leave out the fields of named tuples: their docstrings say nothing."""
    return True if (obj.__doc__ or "").startswith("Alias for field number") else None


def say_where_to_run(app, pagename, templatename, context, doctree):  # noqa: ARG001
    """Head a notebook's page with its file and the places that run it."""
    if not pagename.startswith("notebooks/"):
        return
    name = f"{pagename.removeprefix('notebooks/')}.ipynb"
    links = {f"Download {name}": f"../_sources/notebooks/{name}"}
    if LITE:
        here = f"../lite/lab/index.html?path=notebooks/{name}"
        links["Run it in this browser (JupyterLite)"] = here
    if REPOSITORY.startswith("https://github.com/"):
        owner = REPOSITORY.removeprefix("https://github.com/")
        colab = "https://colab.research.google.com/github"
        links["Colab"] = f"{colab}/{owner}/blob/main/notebooks/{name}"
        links["Binder"] = (
            f"https://mybinder.org/v2/gh/{owner}/main?urlpath=lab/tree/notebooks/{name}"
        )
    bar = " · ".join(f'<a href="{address}">{words}</a>' for words, address in links.items())
    context["body"] = f'<p class="where-to-run">{bar}</p>\n{context["body"]}'


def visit_math(translator, node, display="inline"):
    """Write a formula as MathML."""
    source = node.astext().strip().replace("'", "\N{PRIME}")  # raised already: no superscript
    formula = convert(source, display=display)
    if "\\" in formula:
        logging.getLogger(__name__).warning("not understood: %s", node.astext(), location=node)
    translator.body.append(formula if display == "inline" else f'<div class="math">{formula}</div>')
    raise nodes.SkipNode


def visit_math_block(translator, node):
    """Write a formula on a line of its own."""
    visit_math(translator, node, "block")


def setup(app):
    """Connect the above; read or write all pages anew when a variable has changed."""
    app.add_config_value("igc_ref_repository", REPOSITORY, "env")
    app.add_config_value("igc_ref_lite", LITE, "html")
    app.connect("doctree-read", map_links, priority=400)  # before Sphinx collects downloads
    app.connect("doctree-read", drop_widgets, priority=900)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("html-page-context", say_where_to_run)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math_block, None))
