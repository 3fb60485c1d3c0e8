"""Every test here trains on 60 images of `shapes` and tests on 30."""

from functools import cache

import pytest

from igc_ref import data

drawn = cache(lambda split, draw=data.shapes: draw(split, {"train": 60, "test": 30}[split]))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(data, "shapes", drawn)
