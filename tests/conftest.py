"""Hypothesis profiles: ``ci`` (default) repeats its examples, ``explore`` draws new ones."""

import os

import pytest
from hypothesis import HealthCheck, settings

from igc_ref.backends import cupy_problem, get_backend, numba_problem

settings.register_profile(
    "ci",
    max_examples=30,
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", parent=settings.get_profile("ci"), derandomize=False, max_examples=1000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(
    params=["numpy", "numba", pytest.param("cupy", marks=pytest.mark.gpu)], scope="session"
)
def backend(request):
    """Every backend in turn; cupy skips, with the reason, where it cannot run."""
    problem = {"numpy": lambda: None, "numba": numba_problem, "cupy": cupy_problem}[request.param]()
    if problem:
        pytest.skip(problem)
    chosen = get_backend(request.param)
    chosen.tile_bytes = 3000  # small tiles, so that small tests cross their borders
    return chosen


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch, tmp_path_factory):
    """No test fetches from the published addresses, nor reads or fills the user's cache."""
    monkeypatch.setenv("IGC_REF_DATA_URL", "")
    monkeypatch.setenv("IGC_REF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
