"""Every test here trains on 60 images of `shapes` and tests on 30."""

from functools import cache

import pytest

from igc_ref import data

SIZES = {"train": 60, "test": 30}


@cache
def drawn(split, draw=data.shapes):
    return draw(split, size=SIZES[split])


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(data, "shapes", drawn)
