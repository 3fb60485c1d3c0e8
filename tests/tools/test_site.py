"""The site: Sphinx builds it without a warning, and all links between its pages lead somewhere.

``IGC_REF_SITE`` is the folder of a site that is there already, as `.ci/run` has built it.
"""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("myst_nb", reason="the extra docs is not installed")
ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    def __init__(self, path):
        super().__init__()
        self.links, self.needs, self.anchors = [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors.add(attrs.get("id"))
        links = self.links if tag == "a" else self.needs  # without what it needs it looks wrong
        links += [attrs[name] for name in ("href", "src") if attrs.get(name)]


@pytest.fixture
def site(tmp_path):
    """The folder of a site; one that is built here has notebooks that were not run."""
    if built := os.environ.get("IGC_REF_SITE"):
        return Path(built)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-d", tmp_path / "doctrees"]
    unexecuted = ["-D", "nb_execution_mode=off", ROOT / "docs", tmp_path / "site"]
    variables = {"PYTHONPATH": str(ROOT), "IGC_REF_REPOSITORY": "https://github.com/owner/name"}
    subprocess.run([*command, *unexecuted], check=True, env=os.environ | variables)
    return tmp_path / "site"


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site):
    ours = (path for path in site.rglob("*.html") if "lite" not in path.relative_to(site).parts)
    pages = {path: Page(path) for path in ours}
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        for text in page.links + page.needs:
            link = urlsplit(text)
            if link.scheme == "data" or (link.scheme == "https" and text not in page.needs):
                continue
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            known = pages[target].anchors if target in pages else {""}
            if link.scheme or not target.exists() or unquote(link.fragment) not in known:
                broken.append((path.name, text))
    assert broken == []
