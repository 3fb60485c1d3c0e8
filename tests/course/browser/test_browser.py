"""The course in a real browser, as a reader opens it: JupyterLab, Run All Cells, a slider moved.

    pip install -e '.[browser]'; apt-get install chromium   # or IGC_REF_CHROMIUM=/path/to/it
    python -m pytest -m slow tests/course/browser --basetemp=/tmp/images

Skipped where Chromium, Playwright or JupyterLab is absent. Images of every cell that draws
something are left below ``--basetemp``, to be looked at. The notebooks are run in a copy, since
JupyterLab saves outputs.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed: pip install '.[browser]'")

ROOT = Path(__file__).parents[3]
SETTINGS = {  # all cells in the page at once; no question about news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RUN_SECONDS = 900  # for a whole notebook; a minute is usual, but machines may be busy
PATIENCE = 180  # seconds for anything else

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start ``jupyter lab notebooks`` as the README says, on a copy; yield its address."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "notebooks", "--no-browser", "--allow-root",
        "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=",
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "IGC_REF_DATA_URL": "",  # no downloads
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    with (home / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_answer(address, server, home / "log")
            yield address
        finally:
            server.terminate()
            server.wait(60)


def wait_for_answer(address, server, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/api/status", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module", params=["01_matrices", "04_special_cases"], ids=["01", "04"])
def page(request, browser, lab):
    """A notebook in JupyterLab, all cells run."""
    page = browser.new_page(viewport={"width": 1300, "height": 1500})
    page.set_default_timeout(1000 * PATIENCE)
    page.goto(f"{lab}/lab/tree/{request.param}.ipynb?reset")
    source = json.loads((ROOT / "notebooks" / f"{request.param}.ipynb").read_text("utf-8"))
    count = sum(cell["cell_type"] == "code" for cell in source["cells"])
    wait_until_the_notebook_is_open(page, count)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    wait_until_all_cells_have_run(page)
    yield page
    page.close()


def wait_until_the_notebook_is_open(page, count):
    """Return when all code cells are there, and the kernel has been idle for three seconds."""
    cells, ready = page.locator(".jp-Notebook .jp-CodeCell"), page.get_by_text("(ipykernel) | Idle")
    deadline, idle = time.monotonic() + PATIENCE, 0
    while idle < 3:
        assert time.monotonic() < deadline, f"{cells.count()} of {count} cells after {PATIENCE} s"
        page.wait_for_timeout(1000)
        idle = idle + 1 if cells.count() == count and ready.is_visible() else 0


def wait_until_all_cells_have_run(page):
    deadline = time.monotonic() + RUN_SECONDS
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    while not all(re.fullmatch(r"\[\d+\]:", text.strip()) for text in prompts.all_inner_texts()):
        assert time.monotonic() < deadline, prompts.all_inner_texts()
        which_kernel = page.locator(".jp-Dialog button", has_text="Select")
        if which_kernel.is_visible():  # asked now and then, if the kernel was slow to start
            which_kernel.click()
        page.wait_for_timeout(1000)


def test_all_cells_run_without_an_error(page):
    for kind in ("error", "stderr"):
        shown = page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']")
        assert shown.all_inner_texts() == []


def test_equations_are_typeset(page):
    assert page.locator("mjx-container").count() > 10
    text = " ".join(page.locator(".jp-MarkdownCell").all_inner_texts())
    assert "$$" not in text


def test_every_picture_is_one(page, tmp_path):
    cells = page.locator(".jp-CodeCell:has(.jp-OutputArea img)")
    assert cells.count() > 5
    sizes = page.locator(".jp-OutputArea img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert min(sizes) > 200
    for i in range(cells.count()):
        cells.nth(i).screenshot(path=tmp_path / f"cell-{i:02d}.png")
    sections = page.locator(".jp-MarkdownCell:has(mjx-container)")
    for i in range(sections.count()):
        sections.nth(i).screenshot(path=tmp_path / f"text-{i:02d}.png")


def test_moving_a_slider_draws_the_picture_anew(page, tmp_path):
    cells = page.locator(".jp-CodeCell:has(.noUi-handle)")
    assert cells.count() >= 1
    for i in range(cells.count()):
        cell = cells.nth(i)
        image, handle = cell.locator("img").first, cell.locator(".noUi-handle").first
        before, value = image.get_attribute("src"), handle.get_attribute("aria-valuenow")
        cell.screenshot(path=tmp_path / f"slider-{i}-before.png")
        handle.focus()
        handle.press("ArrowRight")
        page.wait_for_function(
            "([cell, before]) => (cell.querySelector('img') ?? {src: before}).src != before",
            arg=[cell.element_handle(), before],
        )
        assert handle.get_attribute("aria-valuenow") != value
        cell.screenshot(path=tmp_path / f"slider-{i}-after.png")


def test_a_solution_is_folded_until_it_is_opened(page, tmp_path):
    solution = page.locator("details", has_text="Solution 1").first
    assert not solution.locator("code").first.is_visible()
    solution.locator("summary").click()
    assert solution.locator("code").first.is_visible()
    page.locator(".jp-MarkdownCell", has=solution).first.screenshot(path=tmp_path / "solution.png")
