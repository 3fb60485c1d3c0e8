"""Settings of all tests: hypothesis profiles, the `backend` fixture, tests on a GPU, workers.

Variables of the environment:

* ``HYPOTHESIS_PROFILE=explore`` draws new examples, 1000 a test; ``ci``, the default, repeats its
  own.
* ``IGC_GPU=1`` makes it an error if the cupy backend cannot run here.
* ``IGC_GPU_EXAMPLES=1`` also runs hypothesis tests on a GPU; each compiles up to 79 kernels.
* ``IGC_REF_TEST_CACHE`` is the folder of what g++ and NVRTC have compiled (`tests.support.cache`).
"""

import os
from functools import cache
from pathlib import Path

import pytest

from igc_ref import data
from igc_ref.backends import cupy_problem, get_backend, numba_problem
from tests.backends.cuda import emulator

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # tests/backends/cuda/test_gpu.py runs without it
    pass
else:
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


# The first file compiles numba's kernels, about 40 s of one core. The next ones need none of them;
# all others find them in numba's cache. A long file that began late would run alone at the end.
FOLDER = Path(__file__).parent
FIRST = (
    *("backends/test_numba.py", "course", "tools/test_gpu_lease.py", "backends/cuda"),
    *("proofs", "data", "backends/test_lanes.py"),
)


NO_GPU = cupy_problem()


def pytest_configure():
    """Stop at once if a GPU was asked for and cannot be used."""
    if os.environ.get("IGC_GPU") == "1" and NO_GPU:
        raise pytest.UsageError(f"IGC_GPU=1, but the cupy backend cannot run: {NO_GPU}")


def pytest_collection_modifyitems(items):
    """Put the files in order; keep hypothesis off kernels that it would compile by the dozen."""
    items.sort(key=turn)
    asked = os.environ.get("IGC_GPU_EXAMPLES") == "1"
    unasked = pytest.mark.skip(reason="IGC_GPU_EXAMPLES=1 compiles the kernels of every example")
    for item in items:
        if NO_GPU and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=NO_GPU))
        if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            if parameters.get("backend") == "cupy" and not asked:
                item.add_marker(unasked)
            # float64 runs on the generic operators, so nothing is compiled.
            if parameters.get("backend") == "emulated" and parameters.get("dtype") == "float32":
                item.add_marker(pytest.mark.slow)


def turn(item):
    """Return the place of a test's file among all."""
    path = item.path.relative_to(FOLDER).as_posix()
    return next((i for i, start in enumerate(FIRST) if path.startswith(start)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out whole files, in order, so that a module's fixtures are made once."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(
    params=[
        "numpy",
        "numba",
        "emulated",
        pytest.param("cupy", marks=pytest.mark.gpu),
    ],
    scope="module",
)
def backend(request):
    """Every backend in turn, the cupy backend on the CPU emulator and on a GPU."""
    problems = {"numba": numba_problem, "emulated": emulator.problem}
    if problem := problems.get(request.param, lambda: None)():
        pytest.skip(problem)
    if request.param == "emulated":
        from tests.backends.cuda.emulator.backend import EmulatedBackend

        chosen = EmulatedBackend()
    else:
        chosen = get_backend(request.param)
    chosen.tile_bytes = 3000  # small tiles, so that small tests cross their borders
    return chosen


FEW = {"train": 60, "test": 30}
drawn = cache(lambda split, size=None, draw=data.shapes: draw(split, size or FEW[split]))


@pytest.fixture
def few_images(monkeypatch):
    """Let the built-in data set have 60 images to train on and 30 to test on."""
    monkeypatch.setattr(data, "shapes", drawn)


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch, tmp_path_factory):
    """No test fetches from the published addresses, nor reads or fills the user's cache."""
    monkeypatch.setenv("IGC_REF_DATA_URL", "")
    monkeypatch.setenv("IGC_REF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
