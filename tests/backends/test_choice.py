"""Which backend one gets, and what is said when it cannot run."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from igc_ref import TrainConfig, backends, build_model
from igc_ref.backends import NumpyBackend, get_backend, numba_problem
from igc_ref.errors import BackendError, SpecError


@pytest.fixture
def fake_cupy(monkeypatch):
    """Put a module named cupy where the real one would be; return it."""
    module = ModuleType("cupy")
    module.ndarray = type("ndarray", (), {})
    module.__version__ = "14.2.0"
    module.asnumpy = lambda array: array
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.delitem(sys.modules, "igc_ref.backends.cupy.backend", raising=False)
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setitem(backends._PROBLEMS, "numba", lambda: "left out")
    yield module
    sys.modules.pop("igc_ref.backends.cupy.backend", None)


def test_numpy_is_numpy_and_an_unknown_backend_an_error_that_names_the_known_ones():
    assert isinstance(get_backend("numpy"), NumpyBackend)
    for wrong in ("tpu", None, ["numpy"], {}):
        with pytest.raises(BackendError, match=r"backend=.* is unknown; choose one of auto, numpy"):
            get_backend(wrong)
    with pytest.raises(BackendError, match="backend=None is unknown"):
        build_model("plain", 5, width=4, backend=None)


@pytest.mark.parametrize(("name", "what"), [("cupy", "'cupy-cuda13x"), ("numba", "numba")])
def test_a_library_that_is_missing_is_an_error_by_name_and_numpy_by_auto(monkeypatch, name, what):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=rf"{name}.*: pip install {what}"):
        get_backend(name)
    assert get_backend("auto").name == "numpy"


def test_a_broken_numba_is_an_error_by_name_and_numpy_by_auto(monkeypatch):
    for name in [*sys.modules]:
        if name.startswith("igc_ref.backends.numba"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(backends, "numba_backend", raising=False)
    monkeypatch.setitem(sys.modules, "numba", ModuleType("numba"))
    monkeypatch.setattr(backends, "find_spec", lambda name: object())
    monkeypatch.setitem(backends._PROBLEMS, "cupy", lambda: "no card")
    with pytest.raises(BackendError, match="numba is installed but fails: ImportError"):
        get_backend("numba")
    with pytest.warns(RuntimeWarning, match="numpy; no card; numba is installed but fails: Imp"):
        assert get_backend("auto").name == "numpy"


@pytest.mark.skipif(bool(numba_problem()), reason=str(numba_problem()))
def test_auto_prefers_numba_to_numpy(monkeypatch):
    monkeypatch.setitem(backends._PROBLEMS, "cupy", lambda: "no card")
    assert get_backend("auto").name == get_backend("numba").name == "numba"


def test_a_broken_cupy_and_no_device_are_errors_by_name_and_numpy_by_auto(fake_cupy):
    with pytest.raises(BackendError, match="CuPy is installed but fails: AttributeError"):
        get_backend("cupy")  # the fake has no cuda
    with pytest.warns(RuntimeWarning, match="takes numpy; CuPy is installed but fails: Attr"):
        assert get_backend("auto").name == "numpy"
    fake_cupy.cuda = SimpleNamespace(is_available=lambda: False)
    with pytest.raises(BackendError, match="finds no CUDA device"):
        get_backend("cupy")
    with pytest.warns(RuntimeWarning, match="finds no CUDA device or driver on this machine; left"):
        assert get_backend("auto").name == "numpy"


def test_with_a_device_auto_takes_cupy(fake_cupy):
    fake_cupy.cuda = SimpleNamespace(
        is_available=lambda: True,
        Device=lambda: SimpleNamespace(
            compute_capability="90", attributes={"MaxSharedMemoryPerBlockOptin": 232448}
        ),
        Stream=lambda non_blocking: None,
        MemoryPool=lambda: None,
    )
    assert get_backend("auto").name == get_backend("cupy").name == "cupy"
    assert get_backend("cupy").xp is fake_cupy


def test_an_old_cupy_and_an_old_card_are_errors_that_name_what_is_needed(fake_cupy):
    fake_cupy.__version__ = "13.6.0"
    with pytest.raises(BackendError, match=r"CuPy is 13\.6\.0; 14\.0 or newer is needed"):
        get_backend("cupy")
    fake_cupy.__version__ = "14.2.0"
    fake_cupy.cuda = SimpleNamespace(
        is_available=lambda: True, Device=lambda: SimpleNamespace(compute_capability="70")
    )
    with pytest.raises(BackendError, match=r"compute capability 7\.0; 7\.5 is needed"):
        get_backend("cupy")


def test_images_in_16_bits_are_the_cupy_backend_s_alone():
    for name in ("numpy", "numba"):
        with pytest.raises(
            BackendError, match=f"storage='float16' needs the cupy backend, not {name}"
        ):
            get_backend(name, "float16")
    with pytest.raises(SpecError, match="storage='int8'"):
        get_backend("numpy", "int8")
    with pytest.raises(SpecError, match="storage=float16 is for dtype=float32, not float64"):
        TrainConfig(dtype="float64", storage="float16")
