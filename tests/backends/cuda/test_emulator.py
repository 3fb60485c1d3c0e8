"""Test the tester: planted CUDA bugs must fail in the emulator, right kernels must not."""

import re

import numpy as np
import pytest

from tests.backends.cuda import emulator
from tests.backends.cuda.emulator import CompileError, LaunchError, RawModule, running

pytestmark = [
    pytest.mark.skipif(bool(emulator.problem()), reason=str(emulator.problem())),
    pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning"),  # poison is NaN
]
ORDERS = ("forward", "reversed", "shuffled")

# Bodies of a kernel of one block of 64 threads t, which makes y[t] of x.
EXCHANGE = "__shared__ float s[64]; s[t] = x[t]; %s y[t] = s[(t + %s) %% 64];"
COPIES = """
    __shared__ float tile[3][64];
    for (int stage = 0; stage < 3; ++stage, copy_commit()) copy_async<4>(&tile[stage][t], x + t);
    %s
    y[t] = tile[0][t] + tile[1][t];
    copy_wait<0>();"""


def module_of(*bodies):
    """Build the kernels planted0, planted1, ... of these bodies, each with lines of its own."""
    head = "(const float* x, float* y) { int t = threadIdx.x;"
    return RawModule(code="\n".join(
        f'#line 1 "kernel.cu"\nextern "C" __global__ void planted{i}{head} {body} }}'
        for i, body in enumerate(bodies)
    ))  # fmt: skip


def launch(module, number=0, threads=64, shared_mem=0):
    """Run a planted kernel on x = 0, 1, ...; return y."""
    x, y = np.arange(threads, dtype=np.float32), np.zeros(threads, np.float32)
    kernel = module.get_function(f"planted{number}")
    kernel((1,), (threads,), (x, y), shared_mem=shared_mem)
    return y


def run(body, threads=64, shared_mem=0, **settings):
    with running(**settings):
        return launch(module_of(body), 0, threads, shared_mem)


# --- right kernels
RIGHT = r"""
#if IGC_HALF
typedef unsigned short storage;
#define load half_to_float
#define save float_to_half
#else
typedef float storage;
#define load
#define save
#endif
template <int N> __device__ __forceinline__ float* scratch() { __shared__ float s[N]; return s; }

// y[i] = the sum of the block's x, in a fixed order, plus the right neighbour's x.
extern "C" __global__ void __launch_bounds__(IGC_WARPS * 32, 2)
right(const storage* __restrict__ x, /* a, comment */ storage* __restrict__ y, int n, float bias) {
    extern __shared__ __align__(16) unsigned char memory[];
    float* tile = reinterpret_cast<float*>(memory);
    float* sums = scratch<IGC_WARPS>();
    const int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    tile[t] = load(x[i]);
    float sum = tile[t];
#pragma unroll
    for (int bits = 16; bits; bits /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, bits);
    if (t % 32 == 0) sums[t / 32] = sum;
    __syncthreads();
    for (int w = 0; w < IGC_WARPS; ++w) bias += sums[w];
    y[i] = save(bias + tile[(t + 1) % blockDim.x]);
}
#ifdef IGC_ABSENT
extern "C" __global__ void right(unknown_type x);
#endif
"""


@pytest.mark.parametrize("option", ["--ptxas-options=-v", "-DIGC_HALF=1", "-DEMU_UCONTEXT"])
def test_right_kernel_gives_the_same_bits_in_every_order(option):
    kernel = RawModule(code=RIGHT, options=("-DIGC_WARPS=3", option)).get_function("right")
    dtype = np.float16 if "HALF" in option else np.float32
    x = np.random.default_rng(0).integers(-8, 8, (5, 96)).astype(dtype)
    expected = 0.5 + x.sum(1, keepdims=True) + np.roll(x, -1, 1)
    for order in ORDERS:
        y = np.zeros_like(x)
        with running(order=order, blocks=order, seed=1):
            args = (x, y, np.int32(x.size), np.float32(0.5))
            kernel((5,), (96,), args, shared_mem=96 * 4)
        np.testing.assert_array_equal(y, expected)


def test_warp_functions():
    body = """
        int lane = t % 32;
        int sum = __shfl_down_sync(~0u, t, 30) + 100 * __shfl_sync(~0u, lane, 35);  // 35 is lane 3
        if (lane < 16) sum += 1000 * (__ballot_sync(0xFFFFu, lane == 2) == 4u);
        else sum += 1000 * int(__shfl_xor_sync(0xFFFF0000u, 2.0, 1));
        __syncwarp();
        y[t] = sum;"""
    y, t = run(body), np.arange(64)
    expected = t + 300 + np.where(t % 32 < 16, 1000, 2000) + np.where(t % 32 < 2, 30, 0)
    np.testing.assert_array_equal(y, expected)


def test_indices_in_three_dimensions():
    code = """extern "C" __global__ void index(int* y) {
        int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
        y[block * blockDim.x * blockDim.y * blockDim.z + thread] = 100 * block + thread;
    }"""
    y = np.zeros((24, 30), np.int32)
    RawModule(code=code).get_function("index")((2, 3, 4), (5, 3, 2), (y,))
    np.testing.assert_array_equal(y, 100 * np.arange(24)[:, None] + np.arange(30))


def test_half_is_ieee_binary16():
    code = """
    extern "C" __global__ void widen(const unsigned short* x, float* y, int n) {
        for (int i = 0; i < n; ++i) y[i] = half_to_float(x[i]);
    }
    extern "C" __global__ void narrow(const float* x, unsigned short* y, int n) {
        for (int i = 0; i < n; ++i) y[i] = float_to_half(x[i]);
    }"""
    module = RawModule(code=code)
    patterns, floats = np.arange(65536, dtype=np.uint16), np.zeros(65536, np.float32)
    module.get_function("widen")((1,), (1,), (patterns, floats, np.int32(65536)))
    wanted = patterns.view(np.float16).astype(np.float32)
    same = floats.view(np.uint32) == wanted.view(np.uint32)
    assert (same | (np.isnan(floats) & np.isnan(wanted))).all()

    finite = floats[np.isfinite(floats)]
    ties = (finite[:-1] + finite[1:]) / 2  # between two halves
    edge = [65519.996, 65520, 65536, 3e38, np.inf, np.nan, 1e-40, 2**-25, 2**-24, -0.0]
    edge = np.array(edge, np.float32)
    above, below = (np.nextafter(ties, np.float32(side)) for side in (np.inf, -np.inf))
    x = np.concatenate([floats, ties, above, below, edge, -edge])
    y = np.zeros(x.size, np.uint16)
    module.get_function("narrow")((1,), (1,), (x, y, np.int32(x.size)))
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    same = y == wanted.view(np.uint16)
    assert (same | (np.isnan(y.view(np.float16)) & np.isnan(wanted))).all()


# --- planted bugs


@pytest.mark.parametrize("shift", [1, 63])
def test_missing_barrier_shows(shift):
    for order in ORDERS:
        y = run(EXCHANGE % ("__syncthreads();", shift), order=order)
        np.testing.assert_array_equal(y, np.roll(np.arange(64), -shift))
    wrong = [run(EXCHANGE % ("", shift), order=order) for order in ORDERS]
    assert any(np.isnan(y).any() for y in wrong)
    assert any((y != wrong[0]).any() for y in wrong[1:])


def test_copy_arrives_at_its_wait_and_not_before():
    x2 = 2 * np.arange(64)
    np.testing.assert_array_equal(run(COPIES % "copy_wait<1>();"), x2)
    for wrong in ("", "copy_wait<2>();"):  # no wait; a wait which leaves stage 1 in flight
        assert np.isnan(run(COPIES % wrong)).all()
    too_soon = "__shared__ float s[64]; s[t] = 1; copy_async<4>(s + t, x); y[t] = s[t]; %s"
    assert np.isnan(run(too_soon % "copy_commit(); copy_wait<0>();")).all()  # not the old value


@pytest.mark.parametrize(
    "body",
    [
        "__shared__ float tile[65]; tile[t] = 1; __syncthreads(); y[0] = tile[64];",
        "__shared__ float nobody[4]; y[0] = nobody[3];",
        "extern __shared__ float tile[]; y[0] = tile[5];",
        "extern __shared__ float tile[]; y[0] = tile[16];",  # past the end
    ],
)
def test_unwritten_shared_memory_is_poison(body):
    assert np.isnan(run(body, shared_mem=64)[0])


WHERE = r"kernel 'planted.+', block \(0, 0, 0\), thread \(0, 0, 0\): divergent "
FAILING = [  # (body, message)
    ("if (t < 32) __syncthreads();", WHERE + "barrier: .* thread .32, 0, 0. is at its end"),
    ("if (t < 32) __syncthreads();\nelse __syncthreads();", "at line 2, while thread .* at line 1"),
    ("if (t % 2) __syncthreads(); else __syncwarp();", WHERE + "warp: .* is at __syncthreads"),
    ("if (t < 16) __shfl_xor_sync(~0u, t, 1);", "shfl_xor.*0xffffffff.*16, 0, 0. is at its end"),
    ("if (t % 2) __shfl_sync(~0u, t, 0);\nelse __shfl_sync(~0u, t, 0);", "divergent warp"),
    ("if (t % 2) __shfl_sync(~0u, t, 0); else __shfl_xor_sync(~0u, t, 0);", "is at __shfl_sync"),
    ("__syncwarp(0xFFFEu);", "mask 0x0000fffe lacks the calling lane 0"),
    ("if (t < 16) __shfl_sync(0xFFFFu, 1, 16);", "reads lane 16, not in mask 0x0000ffff"),
    ("__shared__ int s[64]; copy_async<4>(s, x); copy_wait<0>();", "cp.async still in flight"),
    ("__shared__ float4 s[64]; copy_async<16>(s, x + 1);", r"\(line 1\): misaligned for 16 bytes"),
    ("__shared__ float4 s[64]; copy_async<8>(&s->y, x);", "cp.async .*misaligned for 8 bytes"),
    ("copy_async<4>(y, x);", "the destination is not shared memory"),
    (
        "extern __shared__ float s[]; s[64] = 0;",
        r"block \(0, 0, 0\): .* past the 256 bytes",
    ),
    ("extern __shared__ __align__(16) unsigned char u[]; u[232447] = 0;", "past the 256 bytes"),
]


@pytest.fixture(scope="module")
def failing():
    return module_of(*(body for body, _ in FAILING))


@pytest.mark.parametrize("number", range(len(FAILING)), ids=[message for _, message in FAILING])
def test_planted_bug_is_named(failing, number):
    with pytest.raises(LaunchError, match=FAILING[number][1]):
        launch(failing, number, shared_mem=256)


def test_mask_with_lanes_that_do_not_exist():
    with pytest.raises(LaunchError, match="this warp has 8 lanes"):
        run("__syncwarp();", threads=40)
    run("__syncwarp(t < 32 ? ~0u : 0xFFu);", threads=40)


def test_launch_after_a_failed_one():
    """What a failed launch leaves, suspended fibers and poison, does not reach the next one."""
    code = """extern "C" __global__ void once(int* y, int bad) {
        if (bad && threadIdx.x == 7) __syncwarp(1);
        __syncthreads();
        y[threadIdx.x] += __shfl_xor_sync(~0u, int(threadIdx.x), 1);
    }"""
    once = RawModule(code=code).get_function("once")
    y = np.zeros(96, np.int32)
    with pytest.raises(LaunchError, match=r"thread \(7, 0, 0\): __syncwarp"):
        once((1,), (96,), (y, np.int32(1)))
    once((1,), (32,), (y, np.int32(0)))
    np.testing.assert_array_equal(y[:32], np.arange(32) ^ 1)


# --- wrong launches
F, I = np.zeros(64, np.float32), np.int32(64)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((F, I), "3 parameters, 2 arguments"),
        ((F.astype(np.float64), I, F), "parameter 'x' points to float32, the array is float64"),
        ((F[::2], I, F), "'x': the array is not C-contiguous"),
        ((F, 64, F), "'n' needs a NumPy scalar of int32, not int"),
        ((F, np.int64(64), F), "'n' is int32, the argument is int64"),
        ((F, F, F), "'n' needs a NumPy scalar of int32, not ndarray"),
        ((F, I, F.astype(np.float16)), "'y' points to float32, the array is float16"),
        ((F, I, np.broadcast_to(F, F.shape)), "'y' is not const, the array is read-only"),
    ],
)
def test_wrong_arguments(args, message):
    code = """typedef float storage;
    extern "C" __global__ void f(const float* __restrict__ x, const int n, storage *y) {}"""
    kernel = RawModule(code=code).get_function("f")
    kernel((1,), (64,), (F, I, F))
    with pytest.raises(TypeError, match=f"kernel 'f'.*{message}"):
        kernel((1,), (64,), args)


def test_wrong_launches():
    code = 'extern "C" __global__ void __launch_bounds__(64) f() {}'
    kernel = RawModule(code=code).get_function("f")
    with pytest.raises(LaunchError, match="65 threads a block, __launch_bounds__ says 64"):
        kernel((1,), (65,), ())
    with pytest.raises(LaunchError, match="max_dynamic_shared_size_bytes is 49152"):
        kernel((1,), (64,), (), shared_mem=49153)
    kernel.max_dynamic_shared_size_bytes = 232448
    kernel((1,), (64,), (), shared_mem=232448)
    with pytest.raises(ValueError, match="232449"):
        kernel.max_dynamic_shared_size_bytes = 232449


def test_compile_errors():
    with pytest.raises(CompileError, match=r"kernel.cu:2:1[01]?: error"):
        RawModule(code="\nnonsense x;")
    with pytest.raises(CompileError, match="frame size"):
        run("volatile float big[20000]; big[t] = 0;")
    with pytest.raises(KeyError, match=r"no kernel 'g'.*\['f'\]"):
        RawModule(code='extern "C" __global__ void f() {}').get_function("g")


# --- sanitizers
HIDDEN = 'char* p = s; asm("" : "+r"(p)); p[64] = 0;'  # UBSan cannot know the array
SANITIZED = [  # (body, message)
    ("y[63] = x[63];", ""),
    ("\ny[t + 1] = 0;", "heap-buffer-overflow.*WRITE.*kernel.cu:2"),
    ("y[0] = x[t + 1];", "heap-buffer-overflow.*READ.*kernel.cu:1"),
    ("__shared__ float s[64]; s[t + 1] = 0;", "kernel.cu:1.*index 64 out of bounds"),
    ("__shared__ char s[64];" + HIDDEN, "global-buffer-overflow.*WRITE.*kernel.cu:1"),
    ("extern __shared__ float s[]; s[t] = 0;", "use-after-poison.*WRITE.*kernel.cu:1"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("body", "message"), SANITIZED)
def test_sanitizers_name_a_bad_access(body, message):
    body += " __shfl_xor_sync(~0u, x[0], 1); __syncthreads();"  # fibers do switch
    done = emulator.run_sanitized(
        f"from {__name__} import run; run({body!r}, sanitize=True, shared_mem=252)"
    )
    if done is None:
        pytest.skip("g++ comes without libasan")
    assert (done.returncode != 0) == bool(message), done.stderr
    assert re.search(f"(?s){message}", done.stderr), done.stderr
