"""How puzzles.ipynb runs a reader's CUDA kernel: on the CPU, by the emulator of our tests.

The kernel runs in a process of its own, so that it may crash or never end. There it runs three
times, with its threads and blocks in three orders, under sanitizers that stop it at the first
access outside of an array. Whatever goes wrong becomes one sentence.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ORDERS = ("forward", "reversed", "shuffled")
SECONDS = 40  # for one launch; g++ needs 2 or 3 of them
UNWRITTEN = np.float32(-1e30)  # what the output holds before the kernel runs
GIVEN = r"""#line 1 "given"
// Entry i = (channel, ky, kx) of the patch z at a position of the image x; 0 outside the image.
__device__ float patch(const float* x, int H, int W, int k, int position, int i) {
    int channel = i / (k * k), row = position / W + i / k % k - k / 2;
    int column = position % W + i % k - k / 2;
    bool inside = 0 <= row && row < H && 0 <= column && column < W;
    return inside ? x[(channel * H + row) * W + column] : 0;
}
#line 1 "kernel.cu"
"""
FAULTS = (  # what g++ and the sanitizers say, and how we say it
    (r"kernel\.cu:(\d+):\d+: (?:fatal )?error: (.*)", r"line \1 does not compile: \2"),
    (r"(?<!runtime )error: (.*)", r"it does not compile: \1"),
    (r"(\d+) parameters, (\d+) arguments", r"it has \1 parameters and must have \2, as shown"),
    (r"(?s)stack-overflow.*?kernel\.cu:(\d+)", r"line \1: a function calls itself without end"),
    (r"kernel\.cu:(\d+):\d+: runtime error: (.*)", r"line \1: \2"),
    (r"(?s)AddressSanitizer:.*?READ.*?kernel\.cu:(\d+)", r"line \1 reads outside of an array"),
    (r"(?s)AddressSanitizer:.*?WRITE.*?kernel\.cu:(\d+)", r"line \1 writes outside of an array"),
)


def problem():
    """Say why no kernel can run here, or return None."""
    if sys.platform != "linux":
        return f"the emulator needs Linux and g++; this is {sys.platform}"
    try:
        from tests.backends.cuda import emulator
    except ImportError:
        return (
            "the emulator is in the repository's folder tests/, and that is not beside notebooks/"
        )
    return emulator.problem()


def run(source, name, grid, block, inputs, shape, numbers):
    """Run ``name(*inputs, output, *numbers)`` on the CPU and return the output.

    Parameters
    ----------
    source : str
        The kernel; it may call `patch`, see `GIVEN`.
    grid, block : tuples of int
        Blocks of the grid, threads of a block.
    inputs : sequence of arrays
        They arrive as ``const float*``.
    shape : tuple of int
        Of the output, which holds `UNWRITTEN` at first.
    numbers : sequence of int

    Raises
    ------
    AssertionError
        If it does not compile, breaks a rule of CUDA, does not end, or gives another output when
        its threads run in another order.
    """
    from tests.backends.cuda import emulator

    args = [*(np.ascontiguousarray(a, np.float32) for a in inputs), np.full(shape, UNWRITTEN)]
    job = {"source": GIVEN + source, "name": name, "grid": grid, "block": block}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.json").write_text(json.dumps(job), encoding="utf-8")
        np.savez(Path(folder) / "before.npz", *args, *map(np.int32, numbers))
        script = f"import sys; sys.path.append({str(Path(__file__).parent)!r}); "
        script += f"import {__name__} as own; own.run_here({folder!r}, {len(inputs)})"
        try:
            done = emulator.run_sanitized(script, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            message = f"it did not end in {SECONDS} s: is there a loop that never ends?"
            raise AssertionError(message) from None
        assert done, "g++ came without libasan, which finds overruns: install it"
        print(done.stdout[:1000], end="")  # of a printf
        assert not done.returncode, sentence(done.stderr, source)
        after = Path(folder) / "after.npy"
        assert after.exists(), "the kernel ended the whole program: return ends a thread"
        outputs = np.load(after)
    return agreed(outputs)


def run_here(folder, which):
    """Run the job of a folder in this process, in three orders, and save argument `which`."""
    from tests.backends.cuda.emulator import CompileError, LaunchError, RawModule, running

    job, outputs = json.loads((Path(folder) / "job.json").read_text(encoding="utf-8")), []
    with np.load(Path(folder) / "before.npz") as file:
        before = list(file.values())
    try:
        for order in ORDERS:
            args = tuple(array.copy() if array.ndim else array[()] for array in before)
            with running(order=order, blocks=order, sanitize=True):
                kernel = RawModule(code=job["source"]).get_function(job["name"])
                kernel(tuple(job["grid"]), tuple(job["block"]), args)
            if any((a != b).any() for a, b in zip(args[:which], before, strict=False)):
                sys.exit("it changes an input: keep the `const` as shown")
            outputs.append(args[which])
    except KeyError:
        sys.exit(f'there is no kernel {job["name"]}: begin it as shown, with extern "C" __global__')
    except (CompileError, LaunchError, TypeError) as error:
        sys.exit(str(error.args[0]))
    np.save(Path(folder) / "after.npy", outputs)


def agreed(outputs):
    """Return the first output if all are the same, NaN included."""
    first, *others = outputs
    for order, other in zip(ORDERS[1:], others, strict=True):
        same = (first == other) | (np.isnan(first) & np.isnan(other))
        if not same.all():
            at = tuple(int(i) for i in np.argwhere(~same)[0])
            raise AssertionError(  # nan is shared memory as it is before a thread writes it
                f"a race: output{list(at)} is {first[at]:.4g} if the threads run in order, "
                f"{other[at]:.4g} if {order}; two threads write the same number, or one reads what "
                "may not be written yet"
            )
    return first


def sentence(stderr, source):
    """Say in one sentence what g++, a sanitizer or the emulator says, and quote the line."""
    message = (stderr.strip() or "the kernel crashed").splitlines()[-1]
    for pattern, form in FAULTS:
        if found := re.search(pattern, stderr):
            message = found.expand(form)
            break
    message = re.sub(r" \(line 0, mask \w+\)|, mask \w+(?=\))", "", message)
    if message.startswith("it does not compile") and (opened := unclosed(source)):
        message = f"line {opened} opens a brace that is never closed"
    number, lines = re.search(r"\bline (\d+)", message), source.split("\n")
    if not number or not 1 <= int(number[1]) <= len(lines):
        return message
    return f"{message}\n    line {number[1]}: {lines[int(number[1]) - 1].strip()}"


def unclosed(source):
    """Return the number of the first line whose brace is never closed, or None."""
    rest, code = None, re.sub(r"//.*", "", source)
    while rest != code:  # take out pair after pair, the innermost first
        rest, code = code, re.sub(r"\{([^{}]*)\}", r"\1", code)
    return code[: code.index("{")].count("\n") + 1 if "{" in code else None
