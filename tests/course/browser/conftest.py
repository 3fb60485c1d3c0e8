"""Chromium for the tests of this folder, which are skipped without it or without Playwright."""

import os
import shutil

import pytest

FLAGS = [  # as root, and quiet: Chromium looks up hosts of its own otherwise
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser():
    chromium = os.environ.get("IGC_REF_CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    reason = "Playwright is not installed: pip install '.[browser]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=chromium, args=FLAGS)
