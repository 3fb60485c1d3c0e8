"""Every kernel that the paper's CIFAR networks need, compiled by NVRTC; no GPU, no driver.

What is compiled is recorded from the networks (nvrtc.py), not listed here. By default:

* sm_90: all networks with images in float32, plain_igc L24M2 in float16;
* sm_75, sm_80 and sm_100: plain_igc L24M2 in float32.

``IGC_ALL_ARCHITECTURES=1`` compiles all networks for all architectures and both storages. Batches
have 256 images; another size may get other tiles.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

from igc_ref.backends.cupy.kernels import source
from igc_ref.backends.cupy.tiles import compiled_registers
from igc_ref.backends.operators.lazy import Batch
from igc_ref.errors import BackendError
from tests.backends.cuda import nvrtc

problem = nvrtc.problem()


def compiles(test):
    """Mark a test as slow, and as one that needs NVRTC."""
    return pytest.mark.slow(pytest.mark.skipif(bool(problem), reason=str(problem))(test))


KiB = 1024
# Of shared memory that one CUDA block can have.
SHARED_BYTES = {"sm_75": 64 * KiB, "sm_80": 163 * KiB, "sm_90": 227 * KiB, "sm_100": 227 * KiB}
STATIC_SHARED_BYTES = 48 * KiB  # more must be asked for
REGISTERS, REGISTERS_A_THREAD = 65_536, 255
BATCH = 256
STORAGES = ("float32", "float16")

ALL = tuple(nvrtc.NETWORKS)
IGC_L24M2 = ("plain_igc L24M2", "resnet_igc L24M2")
IGC_L4M8 = ("plain_igc L4M8", "resnet_igc L4M8")
CASES = {
    ("sm_90", "float32"): ALL,
    ("sm_90", "float16"): IGC_L24M2[:1],
    ("sm_75", "float32"): IGC_L24M2[:1],
    ("sm_80", "float32"): IGC_L24M2[:1],
    ("sm_100", "float32"): IGC_L24M2[:1],
}
if os.environ.get("IGC_ALL_ARCHITECTURES") == "1":
    CASES = {(a, storage): ALL for a in SHARED_BYTES for storage in STORAGES}

# Bytes that a thread of block_backward.cu may spill, by architecture and block; at most 64. All of
# these use 255 registers.
ALLOWED_SPILLS = {
    **{(a, "IGC L=24 M=4 2->4 32x32 stride 2"): 8 for a in ("sm_75", "sm_80", "sm_90")},
    ("sm_80", "IGC L=24 M=4 4->4 16x16 stride 1"): 8,
}

# Kernels of what other networks do: a batch norm after no convolution, or with no reader;
# the channel shuffles of IGCV2 and IGCV3; DenseNet's concatenation and average pooling.
UNUSED = {
    ("normalise.cu", "find_moments"),
    ("normalise.cu", "apply_rule"),
    ("normalise.cu", "apply_derivative"),
    ("pointwise.cu", "shuffle"),
    ("pointwise.cu", "move"),
    ("pointwise.cu", "average_windows"),
    ("pointwise.cu", "spread_windows"),
}

each_case = pytest.mark.parametrize(
    ("architecture", "storage"), [pytest.param(*case, id="-".join(case)) for case in CASES]
)
each_storage = pytest.mark.parametrize("storage", STORAGES)


def recorded(architecture, storage, networks):
    return nvrtc.record(SHARED_BYTES[architecture], storage, BATCH, networks)


def kernels_of(file):
    pattern = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s+)?(\w+)\('
    return set(re.findall(pattern, source(file)))


@cache
def built(architecture, storage):
    """Every launch, with all kernels of its source, compiled, and the PTX."""
    launches = sorted(
        recorded(architecture, storage, CASES[architecture, storage]).launches, key=str
    )
    sources = sorted({(launch.file, launch.options) for launch in launches})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda source: nvrtc.build(*source, architecture), sources)
        found = dict(zip(sources, results, strict=True))
    return [(launch, *found[launch.file, launch.options]) for launch in launches]


@compiles
@each_case
def test_no_kernel_spills_and_every_block_fits(architecture, storage):
    faults = []
    for launch, kernels, _ in built(architecture, storage):
        assert set(kernels) == kernels_of(launch.file)
        allowed = 0
        if launch.file == "block_backward.cu":
            allowed = ALLOWED_SPILLS.get((architecture, launch.block), 0)
        faults += [
            f"{launch}: {name} has {kernel}; {allowed} bytes of spills are allowed"
            for name, kernel in kernels.items()
            if max(kernel.stack, kernel.spills) > allowed
        ]
        kernel = kernels[launch.name]
        registers = launch.threads * -(-kernel.registers // 8) * 8
        if kernel.registers > REGISTERS_A_THREAD or registers > REGISTERS:
            faults.append(f"{launch}: {launch.threads} threads of {kernel.registers} registers")
        shared = launch.shared_bytes + kernel.static_shared
        if kernel.static_shared > STATIC_SHARED_BYTES or shared > SHARED_BYTES[architecture]:
            faults.append(f"{launch}: {shared} bytes of shared memory")
        if shared > max(STATIC_SHARED_BYTES, launch.allowed_bytes):
            faults.append(f"{launch}: {shared} bytes of shared memory without asking for them")
    assert not faults, "\n".join(faults)


@compiles
@each_case
def test_the_cost_model_knows_the_registers(architecture, storage):
    faults = []
    for launch, kernels, _ in built(architecture, storage):
        if launch.tile:
            expected, actual = compiled_registers(*launch.tile), kernels[launch.name].registers
            if abs(actual - expected) > 80:
                faults.append(f"{launch}: {actual} registers, {expected} in the model")
    assert not faults, "\n".join(faults)


# What must not be in PTX, and the only file that may have it.
FORBIDDEN = {
    "tensor cores": (r"\b(?:wg|w)?mma\.|\btcgen05\.|\.tf32\b", None),
    "atomics": (r"\b(?:atom|red)\.", None),
    "local memory": (r"\.local\b", None),
    "double precision": (r"\.f64\b", "normalise.cu"),
}


@compiles
@each_case
def test_the_instructions_are_the_ones_we_mean(architecture, storage):
    for launch, _, ptx in built(architecture, storage):
        found = {what for what, (pattern, _) in FORBIDDEN.items() if re.search(pattern, ptx)}
        allowed = {what for what, (_, place) in FORBIDDEN.items() if place == launch.file}
        assert found == allowed, launch
        if launch.file.startswith("block_"):
            assert ("cp.async." in ptx) == (architecture != "sm_75"), launch
            assert "fma.rn" in ptx  # and no separate multiplication and addition


@compiles
@pytest.mark.parametrize("what", [*FORBIDDEN, "a spill"])
def test_the_faults_are_found(what, monkeypatch):
    body = {
        "tensor cores": 'unsigned r; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(*x)); *x = r;',
        "atomics": "atomicAdd(x, 1.f);",
        "local memory": "float v[9]; for (int i = 0; i < 9; ++i) v[i * n % 9] = x[i]; *x = v[n];",
        "double precision": "*x = *x * 0.1;",
        "a spill": (
            'float v[300]; _Pragma("unroll") for (int i = 0; i < 300; ++i) v[i] = x[i * n]; '
            '__syncthreads(); _Pragma("unroll") for (int i = 0; i < 300; ++i) x[i] = v[299 - i];'
        ),
    }[what]
    code = f'extern "C" __global__ void __launch_bounds__(256) bad(float* x, int n) {{ {body} }}'
    monkeypatch.setattr(nvrtc, "source", {"bad.cu": code}.get)
    kernels, ptx = nvrtc.build("bad.cu", (), "sm_90")
    if what == "a spill":
        assert kernels["bad"].spills > 64
        assert kernels["bad"].stack > 64
    else:
        assert re.search(FORBIDDEN[what][0], ptx)


@each_storage
def test_every_kernel_is_launched(storage):
    seen = {(x.file, x.name) for x in recorded("sm_90", storage, ALL).launches}
    assert seen == {(file, name) for file in nvrtc.FILES for name in kernels_of(file)} - UNUSED


@each_storage
def test_deeper_networks_need_the_same_kernels(storage):
    deeper = nvrtc.record(SHARED_BYTES["sm_90"], storage, BATCH, ALL, deeper=12)
    assert deeper.launches == recorded("sm_90", storage, ALL).launches


@each_storage
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_every_block_has_a_kernel(architecture, storage):
    assert not recorded(architecture, storage, ALL).without_kernel


def test_outputs_that_32_bits_cannot_count_have_no_kernel():
    backend = nvrtc.RecordingBackend(nvrtc.RecordingDevice(SHARED_BYTES["sm_90"]))
    images, one = 2**31 // 20, np.ones(1, "float32")  # 16 pixels each, 25 outputs
    x = Batch(np.broadcast_to(one, (1, images, 4, 4)))
    with pytest.raises(BackendError, match="has no kernel"):
        backend.conv2d(x, np.ones((1, 1, 2, 2), "float32"))


@each_storage
def test_on_old_cards_the_blocks_of_l24m2_have_a_kernel_and_those_of_l4m8_do_not(storage):
    assert not recorded("sm_75", storage, IGC_L24M2).without_kernel
    missing = recorded("sm_75", storage, IGC_L4M8).without_kernel
    assert len(missing) == 14
    assert all(block.startswith("IGC L=4") for block in missing)
