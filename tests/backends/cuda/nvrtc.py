"""What the paper's networks launch on a card, and what NVRTC makes of it; no card is needed.

`record` runs networks on a device that compiles and computes nothing, but notes what it is asked
for; `build` compiles such a source with the compiler of a CuPy installation.

    python -m tests.backends.cuda.nvrtc

prints registers and spills of all kernels of plain_igc L24M2 and L4M8, for an H100 or H200.
"""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from igc_ref.backends.cupy.geometry import Geometry
from igc_ref.backends.cupy.kernels import FOLDER, source
from igc_ref.backends.cupy.operators import CudaOperators
from igc_ref.backends.cupy.steps import CapturedSteps
from igc_ref.backends.cupy.tiles import Tile, candidates, choose
from igc_ref.backends.operators.library import Sampling, TrainingData
from igc_ref.errors import int_or_pair
from igc_ref.networks.model import build_model
from igc_ref.report import aligned
from igc_ref.training.loop import training_step
from igc_ref.training.optim import SGD
from tests.backends.cuda.emulator.backend import EmulatedDevice
from tests.support.cache import cached

# What CuPy 14 adds to ours: cupy/cuda/compiler.py.
CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
FILES = sorted(path.name for path in FOLDER.glob("*.cu"))
# At these depths stages 2 and 3 have a block that narrows and a block that does not: all there is.
NETWORKS = {
    f"{arch} {width}": (arch, depth, numbers)
    for family, depth in (("plain", 8), ("resnet", 14))
    for arch, width, numbers in (
        (f"{family}_igc", "L24M2", {"L": 24, "M": 2}),
        (f"{family}_igc", "L4M8", {"L": 4, "M": 8}),
        (family, "W16", {"width": 16}),
        (family, "W18", {"width": 18}),
    )
}


@dataclass(frozen=True)
class Launch:
    """A kernel as it was launched, with how its source was to be compiled."""

    file: str
    name: str
    options: tuple[str, ...]
    threads: int
    shared_bytes: int
    allowed_bytes: int  # of dynamic shared memory that the host asked the driver for

    @property
    def macros(self) -> dict[str, int]:
        """What its source was specialised by."""
        found = re.findall(r"-DIGC_(\w+)=(\d+)", " ".join(self.options))
        return {name: int(value) for name, value in found}

    @property
    def block(self) -> str:
        """What is computed, in words; the kernel's name where nothing is specialised."""
        m = self.macros
        if "SLABS" not in m:
            return self.name
        return describe(self.is_igc, m["SLABS"], m["M"], m["I"], m["O"], m["H"], m["S"])

    @property
    def is_igc(self) -> bool:
        """Whether this is a pass of an IGC block."""
        return self.macros.get("SECONDARY") == 1

    @property
    def tile(self) -> tuple[Geometry, Tile] | None:
        """The geometry and the tile of a block or convolution; None for other kernels."""
        m = self.macros
        if "SLABS" not in m:
            return None
        sizes = {name: m[name] for name in ("I", "O", "M", "A", "S", "H", "W")}
        K = int_or_pair("K", (m["KH"], m["KW"]))
        g = Geometry(self.is_igc, m["SLABS"], K=K, **sizes, N=256, share=m["SHARE"])
        shares = tuple(m[name] for name in ("PX", "MS", "NP", "PXD", "IS"))
        found = candidates(g, self.name == "block_backward", m["DX"] == 1, 2 if m["HALF"] else 4)
        return g, next(tile for tile in found if tile.shares == shares)

    def __str__(self) -> str:
        """Name the block and all that its source was specialised by."""
        return f"{self.file}: {self.block} {' '.join(self.options)}"


def describe(is_igc: bool, slabs: int, M: int, I: int, O: int, H: Any, S: Any) -> str:
    """Name a block by its numbers of a partition, a convolution by those of a group."""
    what = f"IGC L={slabs} M={M} {I}->{O}" if is_igc else f"convolution {slabs * I}->{O}"
    return f"{what} {H}x{H} stride {S}"


@dataclass
class Recorded:
    """What was launched, and which blocks and convolutions found no tile."""

    launches: set[Launch] = field(default_factory=set)
    without_kernel: set[str] = field(default_factory=set)


class _Function:
    max_dynamic_shared_size_bytes = 0

    def __init__(self, record: Recorded, file: str, name: str, options: tuple[str, ...]) -> None:
        self.record, self.what = record, (file, name, options)

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int], args: tuple[Any, ...], *, shared_mem: int
    ) -> None:
        assert len(grid) <= 3
        assert all(isinstance(a, np.ndarray | np.generic) for a in args)
        allowed = self.max_dynamic_shared_size_bytes
        self.record.launches.add(Launch(*self.what, block[0], shared_mem, allowed))


class _Module:
    def __init__(self, *what: Any) -> None:
        self.what = what

    def get_function(self, name: str) -> _Function:
        record, file, options = self.what
        return _Function(record, file, name, options)


class RecordingDevice(EmulatedDevice):
    """Notes launches and computes nothing; its arrays are NumPy's, with arbitrary contents."""

    def __init__(self, shared_bytes: int) -> None:
        super().__init__()
        self.xp, self.shared_bytes, self.record = np, shared_bytes, Recorded()
        self.capturing = True  # as inside a CUDA graph, where a generic operator is an error

    def module(self, code: str, options: tuple[str, ...]) -> _Module:
        file = next(name for name in FILES if source(name) == code)
        return _Module(self.record, file, options)

    def upload(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C")

    def overwrite(self, array: np.ndarray, values: np.ndarray) -> None:
        array[...] = values

    def download(self, array: np.ndarray) -> np.ndarray:
        return array.copy()


class RecordingBackend(CudaOperators):
    """Goes on with a large card's tile where this card has none, and notes that."""

    name = "recording"

    def _tile(self, g: Any, backward: bool, dx: bool) -> Any:
        tile = super()._tile(g, backward, dx)
        if tile is None:
            what = describe(g.secondary, g.slabs, g.M, g.I, g.O, g.H, g.S)
            self.device.record.without_kernel.add(f"{what} {'backward' if backward else 'forward'}")
            tile = choose(g, backward, dx, 2 if self.half else 4)
        return tile


@cache
def record(
    shared_bytes: int, storage: str, batch: int, networks: tuple[str, ...], deeper: int = 0
) -> Recorded:
    """Train these networks for a step and evaluate them on a device of so much shared memory."""
    device = RecordingDevice(shared_bytes)
    backend = RecordingBackend(device, storage)
    for name in networks:
        arch, depth, numbers = NETWORKS[name]
        _run(backend, batch, build_model(arch, depth + deeper, **numbers, backend=backend))
    device.record.launches = {
        launch for launch in device.record.launches if launch.shared_bytes <= shared_bytes
    }
    return device.record


def _run(backend: RecordingBackend, batch: int, model: Any) -> None:
    learn = partial(training_step, model, SGD(model))
    images = np.zeros((batch, 3, 32, 32), np.uint8)
    pool = TrainingData(images, np.zeros(batch, np.int64), (125, 123, 114), (63, 62, 67))
    steps = CapturedSteps(backend, learn, pool, batch, 4, capture=False, report=print)
    list(steps.epoch(Sampling(np.arange(batch), None), np.ones(1)))
    model.forward(backend.asarray(images.astype(np.float32)))  # as in an evaluation


# --- the compiler


@dataclass(frozen=True)
class Built:
    """What the compiler says of one kernel."""

    stack: int
    spills: int
    registers: int
    static_shared: int


def problem() -> str | None:
    """Why nothing can be compiled here, or None."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as error:  # not installed, or installed without the compiler
        return (
            f"pip install cupy-cuda13x nvidia-cuda-nvrtc compiles the kernels without a card "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]})"
        )
    return None


def build(file: str, options: tuple[str, ...], architecture: str) -> tuple[dict[str, Built], str]:
    """Compile a source as CuPy does, unless an earlier run did; return its kernels, and the PTX.

    Other threads run meanwhile: CuPy lets go of the interpreter's lock.
    """
    from cupy.cuda import nvrtc

    flags = [*options, *CUPY_OPTIONS, f"-arch={architecture}", "--ptxas-options=-v"]

    def compile_to(path: Path) -> None:
        program = nvrtc.createProgram(source(file), file, [], [])
        try:
            nvrtc.compileProgram(program, flags)
            log, ptx = nvrtc.getProgramLog(program), nvrtc.getPTX(program).decode()
        except nvrtc.NVRTCError as error:
            raise AssertionError(f"{file} {flags}: {nvrtc.getProgramLog(program)}") from error
        finally:
            nvrtc.destroyProgram(program)
        path.write_bytes(gzip.compress(json.dumps([log, ptx]).encode(), compresslevel=1))

    key = ("nvrtc", str(nvrtc.getVersion()), file, source(file), *flags)
    log, ptx = json.loads(gzip.decompress(cached(key, ".json.gz", compile_to).read_bytes()))
    return dict(_kernels(log)), ptx


def _kernels(log: str) -> Iterator[tuple[str, Built]]:
    parts = re.split(r"Compiling entry function '(\w+)'", log)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        stack = _number(r"(\d+) bytes stack frame", text)
        stores, loads = (
            _number(rf"(\d+) bytes spill {kind}", text) for kind in ("stores", "loads")
        )
        registers = _number(r"Used (\d+) registers", text)
        static_shared = _number(r"(\d+) bytes smem", text) if "bytes smem" in text else 0
        yield name, Built(stack, max(stores, loads), registers, static_shared)


def _number(pattern: str, text: str) -> int:
    (number,) = re.findall(pattern, text)
    return int(number)


def table(networks: tuple[str, ...] = ("plain_igc L24M2", "plain_igc L4M8")) -> str:
    """Lay out what the compiler makes of the kernels of these networks, for sm_90."""
    rows = [["kernel", "of", "PX MS NP PXD IS", "threads", "shared", "registers", "spilled bytes"]]
    for launch in sorted(record(232_448, "float32", 256, networks).launches, key=str):
        kernel = build(launch.file, launch.options, "sm_90")[0][launch.name]
        tile = " ".join(map(str, launch.tile[1].shares)) if launch.tile else ""
        what = launch.block if launch.tile else ""
        counts = launch.threads, launch.shared_bytes, kernel.registers, kernel.spills
        rows.append([launch.name, what, tile, *map(str, counts)])
    return aligned(rows)


if __name__ == "__main__":
    print(table())
