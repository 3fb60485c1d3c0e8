"""Data sets of a few records, so that the tests' files are small."""

from dataclasses import replace

import pytest

from igc_ref.data.published import PUBLISHED
from tests.data.cifar_files import RECORDS


@pytest.fixture
def few_records(monkeypatch):
    for name, published in PUBLISHED.items():
        monkeypatch.setitem(PUBLISHED, name, replace(published, records=RECORDS))
