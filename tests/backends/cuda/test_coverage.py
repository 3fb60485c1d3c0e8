"""Which networks run on our kernels alone, and so as a CUDA graph; run without a card."""

import re
from pathlib import Path

import numpy as np
import pytest

from igc_ref.backends.cupy.geometry import of_block
from igc_ref.backends.cupy.operators import CudaOperators
from igc_ref.backends.cupy.steps import CapturedSteps
from igc_ref.backends.cupy.tiles import choose, table
from igc_ref.networks.architecture import ARCHITECTURES, Architecture, numbers_of
from igc_ref.spec.block import IGCSpec
from tests.backends.cuda import emulator
from tests.backends.cuda.epochs import Epochs
from tests.backends.cuda.nvrtc import RecordingDevice

if emulator.problem():
    pytest.skip(emulator.problem(), allow_module_level=True)

from tests.backends.cuda.emulator.backend import EmulatedBackend

KiB = 1024
H100, A100 = 227 * KiB, 163 * KiB  # shared memory of a CUDA block
MAX_POOL = {"max_pool", "max_pool_backward"}
DOCUMENT = Path(__file__).parents[3] / "docs" / "gpu.md"


def network(arch, deep=True, **numbers):
    """A network of this name, of a width that is in use, or the smallest."""
    family, _ = ARCHITECTURES[arch]
    depth = {"plain": 20 if deep else 5, "resnet": 20 if deep else 8, "imagenet": 18, "igcv3": 54}
    depth["densenet"] = 22 if deep else 10
    wide = {"L": 24, "M": 2, "width": 32 if family == "igcv3" else 48}
    if family == "densenet":
        wide = {"L": 6, "M": 2, "width": 12}
    own = {n: numbers.get(n, wide[n]) for n in numbers_of(arch)}
    return Architecture(arch, depth[family], **own)


class HostBackend(CudaOperators):
    """Does all that the host does for a step; `missed` has the operators without a kernel."""

    name = "host"

    def __init__(self, storage, shared_bytes):
        super().__init__(RecordingDevice(shared_bytes), storage)
        self.device.capturing, self.missed = False, set()

    def note_generic(self, operator, what):
        self.missed.add(operator)
        self._warned.add(operator)
        super().note_generic(operator, what)

    def steps(self, learn, pool, batch_size, padding, report):
        return CapturedSteps(self, learn, pool, batch_size, padding, capture=False, report=report)


WIDE = [(network(arch), 64 if "imagenet" in arch else 32) for arch in ARCHITECTURES]
L24M2, L4M8 = network("plain_igc"), network("plain_igc", L=4, M=8)
CIFAR = [a for a, side in WIDE if side == 32]
HALF = {64: 76, 56: 64}  # as large as float32 allows: as large as float16 allows


@pytest.mark.parametrize(
    ("architecture", "side", "shared_bytes", "missed"),
    [
        *((a, side, H100, MAX_POOL if a.family == "imagenet" else set()) for a, side in WIDE),
        *((a, side, A100, MAX_POOL if a.family == "imagenet" else set()) for a, side in WIDE[:-3]),
        (L4M8, 32, H100, set()),
        (L4M8, 32, A100, set()),  # some blocks in steps
        *((a, side, shared, set()) for a in CIFAR for side, shared in ((64, H100), (56, A100))),
        (L24M2, 68, H100, {"conv2d", "conv2d_backward"}),
    ],
    ids=lambda v: " ".join(sorted(v)) or "none" if isinstance(v, set) else str(v),
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*has no kernel")
@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_the_operators_of_a_step_that_have_no_kernel(
    architecture, side, shared_bytes, missed, storage
):
    backend = HostBackend(storage, shared_bytes)
    images = HALF.get(side, side) if storage == "float16" and architecture in CIFAR else side
    Epochs(architecture, backend, 4, 4, images).run(0)
    half_fits = storage == "float16" and side == 68
    assert backend.missed == (set() if half_fits else missed)


def test_the_document_has_the_shapes_with_a_kernel_and_the_gains_of_the_measured_tiles():
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    cells = re.findall(r"(\d+)-\1: (\d+)x\2 and (\d+)x\3 \|", text)
    assert len(cells) == 6
    for channels, *sides in (map(int, cell) for cell in cells):
        L = 24 if channels % 48 == 0 else 4
        spec = IGCSpec(channels, channels, L, channels // L)
        for largest, backward in zip(sides, (False, True), strict=True):
            shapes = (of_block(spec, 256, side, side) for side in range(1, largest + 2))
            fits = [bool(choose(g, backward, shared=H100)) for g in shapes]
            assert fits == [True] * largest + [False], f"{spec}, backward: {backward}"
    gains = sorted(100 * (entry["chosen_us"] / entry["us"] - 1) for entry in table().values())
    said = f"For {len(gains)} of 20 shapes and passes"
    assert re.search(f"{said} .{{,60}} {gains[0]:.0f} to {gains[-1]:.0f} % faster", text)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if "imagenet" not in a])
def test_a_small_network_is_captured_with_the_bits_of_its_kernels_one_by_one(arch):
    found, side = [], 32 if arch == "igcv3" else 12  # whose last blocks see an eighth of it
    for capture in (True, False):
        backend = EmulatedBackend(capture=capture)
        architecture = network(arch, deep=False, L=2, M=2, width=4)
        epochs = Epochs(architecture, backend, 2, 2, side)
        losses = [epochs.run(seed) for seed in range(4)]
        assert backend.device.graphs == int(capture)
        assert epochs.lines == []
        found.append((losses, epochs.model.state_dict()))
    assert found[0][0] == found[1][0]
    for name, array in found[0][1].items():
        assert np.array_equal(array, found[1][1][name]), name
