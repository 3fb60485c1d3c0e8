"""Every test here trains on 60 images of `shapes` and tests on 30."""

import pytest

from igc_ref import data


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    sizes, draw = {"train": 60, "test": 30}, data.shapes
    monkeypatch.setattr(data, "shapes", lambda split: draw(split, size=sizes[split]))
