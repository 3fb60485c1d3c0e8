"""The checks of puzzles.ipynb.

Every check compares an answer, on random inputs and for blocks of several shapes, with a form that
does not share its code: an explicit matrix, a difference quotient, a sum of singular values. If
they differ, it draws yours beside the right one, with the wrong cells hatched, and raises an
AssertionError of one sentence.
"""

import dis
import functools
from types import CodeType

import matplotlib.pyplot as plt
import numpy as np
import puzzle_kernels

from igc_ref import IGCSpec, plots
from igc_ref.errors import IGCError
from igc_ref.reference import (
    backward,
    blockmask,
    composed_kernel,
    first_permutation,
    forward,
    interleave,
    matrices,
    singular_values,
    unfold,
)

WRONG = plots.PALETTE[5]
SQUARE = IGCSpec.square(3, 2)
WIDENING = IGCSpec(4, 8, 2, 2, stride=2)  # its first permutation is not the transpose of its second


# -- asking ----------------------------------------------------------------------------------------


class Unjudged(Exception):  # noqa: N818
    """An answer that is neither right nor wrong, and why."""


def puzzle(number):
    """Let a check say ``not done yet`` or ``right``, in the words that the course's tests know."""

    def decorate(check):
        @functools.wraps(check)
        def judge(*answers):
            __tracebackhide__ = True
            try:
                if any(answer is ... for answer in answers):
                    raise Unjudged("not done yet")
                check(*answers)
                verdict = "right"
            except Unjudged as reason:
                verdict = reason
            except AssertionError as error:  # without the lines of this file, which do not help
                raise AssertionError(*error.args) from None
            print(f"exercise {number}: {verdict}")

        return judge

    return decorate


def ask(function, *arguments):
    """Call the reader's function with copies, which it may change."""
    assert callable(function), f"the answer is a function, not {function!r}"
    answer = function(*(a.copy() if isinstance(a, np.ndarray) else a for a in arguments))
    if answer is ...:
        raise Unjudged("not done yet")
    assert answer is not None, "your function returns None: is its `return` missing?"
    return answer


def of_shape(answer, shape, name="your answer"):
    """Return an answer, which may be a list, as an array of floats of this shape."""
    try:
        array = np.asarray(answer).astype(float, casting="safe")
    except (TypeError, ValueError):
        shown = " ".join(repr(answer).split())[:80]
        raise AssertionError(f"{name} cannot be read as real numbers: {shown}") from None
    assert array.shape == shape, f"{name} has shape {array.shape}; it must have {shape}"
    return array


def whole(answer, name):
    """Return an answer that is one whole number, of whatever type, as an int."""
    right = not np.iterable(answer) and of_shape(answer, (), name) % 1 == 0
    assert right, f"{name} is {answer}; it must be one whole number"
    return int(answer)


def tuple_of(answer, names):
    """Assert that an answer has as many things as there are names."""
    right = np.iterable(answer) and len(answer := tuple(answer)) == names.count(",") + 1
    assert right, f"return a tuple: {names}"
    return answer


def random_weights(spec, rng):
    """Draw weights for a block."""
    return rng.normal(size=spec.primary_shape), rng.normal(size=spec.secondary_shape)


# -- drawing ---------------------------------------------------------------------------------------


def differs(mine, right):
    """Say of every cell whether it is wrong; NaN is."""
    return ~np.isclose(mine, right, rtol=1e-5, atol=1e-5 * abs(right).max() + 1e-9)


def show_cells(mine, right, rows, columns, title="yours"):
    """Draw two matrices beside each other, or one above the other, and hatch the wrong cells."""
    wrong, (height, width) = differs(mine, right), right.shape
    drawn = np.where(np.isfinite(mine) & (abs(mine) < 1e20), mine, 0)
    greatest, wide = abs(right).max(), width > 2 * height
    shape = (2, 1) if wide else (1, 2)
    size = (
        (10, min(1.9 + 20 * height / width, 8))
        if wide
        else (min(2.5 + 6.5 * width / height, 10), 4)
    )
    _, axes = plt.subplots(*shape, figsize=size, layout="constrained")
    for row, column in np.argwhere(wrong):
        cell = plt.Rectangle((column, row), 1, 1, fc="#FBE3D6", ec=WRONG, hatch="////", zorder=0)
        axes[0].add_patch(cell)
    plots.draw_values(axes[0], drawn, title, rows, columns, greatest)
    plots.draw_values(axes[1], right, "right", rows, columns, greatest)
    axes[0].set_xlabel(f"{columns}\n{wrong.sum()} wrong cells of {wrong.size}, hatched", fontsize=8)
    axes[1].set_xlabel(columns, fontsize=8)
    plt.show()


def show_wires(mine, right, names):
    """Draw what two matrices connect: yours, wrong wires thick and dashed, and the right one."""
    _, both = plt.subplots(1, 2, figsize=(9, 0.35 * len(right) + 1.2), layout="constrained")
    for axes, matrix, other, title in zip(
        both, (mine, right), (right, mine), ("yours", "right"), strict=True
    ):
        for end, start in np.argwhere(matrix):
            style = {"color": "#999999"}
            if not other[end, start]:  # a wrong wire of yours, or one that you do not have
                style = (
                    {"color": WRONG, "ls": "--", "lw": 2.5}
                    if title == "yours"
                    else {"lw": 2.5, "color": "black"}
                )
            axes.plot([0, 1], [-start, -end], marker="o", **style)
        axes.set(title=title, xticks=[0, 1], xticklabels=names, xlim=(-0.2, 1.2))
        axes.set(yticks=-np.arange(len(right)), yticklabels=range(len(right)))
        axes.tick_params(length=0)
    plt.show()


def compare(mine, right, rows, columns, sentence):
    """Assert that two matrices agree; if not, show where."""
    if differs(mine, right).any():
        show_cells(mine, right, rows, columns)
        raise AssertionError(sentence)


# -- 1 to 7: the block forwards --------------------------------------------------------------------


@puzzle(1)
def primary_matrix(answer):
    """W_p from its weights, against what `matrices` builds."""
    rng = np.random.default_rng(1)
    for spec in (IGCSpec(4, 6, 2, 3, 2), SQUARE, IGCSpec.square(1, 4), IGCSpec(6, 3, 3, 1, 1)):
        primary, secondary = random_weights(spec, rng)
        right = matrices(primary, secondary, spec).W_p
        mine = of_shape(ask(answer, primary, spec.L), right.shape, "W_p")
        outside = np.count_nonzero(mine[right == 0])
        missing = np.count_nonzero(mine[right != 0] == 0)
        fault = f"{outside} numbers where zeros belong, {missing} zeros where weights belong"
        if not outside + missing:
            fault = "the zeros are right, but the hatched cells hold the wrong weights"
        what = f"primary of shape {primary.shape}, L = {spec.L}: {fault}"
        compare(mine, right, "channel of y", "channel of x, tap", what)


def loops(code):
    """Say whether compiled code, or a comprehension in it, jumps back."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return any("BACKWARD" in i.opname for i in dis.get_instructions(code)) or any(map(loops, inner))


@puzzle(2)
def permutation(answer):
    """Pᵀ without a loop, against `interleave`."""
    for L, size in ((3, 2), (2, 3), (4, 3), (1, 5), (5, 1)):
        right = interleave(L, size)
        mine = of_shape(ask(answer, L, size), right.shape, "the permutation")
        if not np.array_equal(mine, right):
            show_wires(mine, right, ["channel of y", "permuted"])
            fault = "the dashed wires end at the wrong channel"
            if not np.array_equal(np.sort(mine), np.sort(right)) or (mine.sum(axis=0) != 1).any():
                fault = "it is no permutation, which has one 1 in each row and column and zeros"
            raise AssertionError(f"L = {L} partitions of {size} channels: {fault}")
    code = getattr(answer, "__code__", None)
    assert code is None or not loops(code), "right, but there is a loop in it: do without"


POSITIONS = (  # what is new, spec, (row, column)
    ("at a position inside the image", SQUARE, (2, 3)),
    ("at the last corner of the image", SQUARE, (4, 6)),
    ("with stride 2", IGCSpec.square(2, 3, stride=2), (1, 2)),
    ("with kernels of 5 x 5", IGCSpec.square(3, 2, kernel_size=5), (1, 1)),
    ("in a block where M is not out/L", WIDENING, (1, 1)),
)


@puzzle(3)
def one_position(answer):
    """One position of x', against `forward` of the whole image."""
    rng = np.random.default_rng(3)
    for what, spec, (row, column) in POSITIONS:
        primary, secondary = random_weights(spec, rng)
        x = rng.normal(size=(spec.in_channels, 5, 7))
        right = forward(x[None], primary, secondary, spec)[0, :, row, column]
        mine = ask(answer, x, primary, secondary, spec, row, column)
        mine = of_shape(mine, right.shape, "x' at one position")
        if not differs(mine, right).any():
            continue
        same = ~differs(mine[:, None], right)  # [i, o]: my number i is the right number o
        if (same.sum(axis=0) == 1).all():
            show_wires(np.eye(len(right)), same.T, ["yours", "channel of $x'$"])
            raise AssertionError(f"{what}: your numbers are right, but not their order")
        compare(mine[None], right[None], "", "channel of $x'$", f"{what}: wrong; {spec}")


@puzzle(4)
def weights_of_one_output(answer):
    """How many weights one output number depends on, against a gradient's nonzero entries."""
    rng = np.random.default_rng(4)
    specs = (IGCSpec.square(3, 2, 1), IGCSpec.square(2, 3), IGCSpec(4, 12, 2, 3), WIDENING)
    for spec in specs:
        primary, secondary = random_weights(spec, rng)
        x = rng.normal(size=(1, spec.in_channels, 7, 7))
        d = np.zeros((1, spec.out_channels, *spec.output_size(7, 7)))
        d[0, 1, 1, 1] = 1  # the loss is one number: channel 1 at position (1, 1)
        g = backward(d, x, primary, secondary, spec)
        mine = whole(ask(answer, spec), "the count")
        if mine == np.count_nonzero(g.primary) + np.count_nonzero(g.secondary):
            continue
        W_p, _, W_d = matrices(g.primary, g.secondary, spec)
        masks = matrices(np.ones_like(primary), np.ones_like(secondary), spec)
        _, axes = plt.subplots(2, 1, figsize=(10, 6), layout="constrained")
        for panel, used, mask, title in zip(
            axes, (W_p, W_d), masks[::2], ("$W_p$", "$W_d$"), strict=True
        ):
            plots.draw_values(panel, (used != 0) + 0.1 * mask, title, "row", "column")
            panel.set_xlabel("column\nlarge: a weight on which channel 1 of x' depends")
        plt.show()
        raise AssertionError(f"{spec}: {mine} is wrong; count the large squares")


@puzzle(5)
def regular_convolution(answer):
    """A block that is a given regular convolution: its kernel, multiplied out."""
    rng = np.random.default_rng(5)
    for shape in ((4, 3, 1, 1), (3, 4, 2, 2), (6, 6, 3, 3), (8, 2, 3, 3)):
        kernel = rng.normal(size=shape)
        names = "primary, secondary, L, M"
        primary, secondary, L, M = tuple_of(ask(answer, kernel), names)
        try:
            spec = IGCSpec(shape[1], shape[0], L, M, shape[-1])
        except IGCError as error:
            raise AssertionError(f"a kernel of shape {shape}: {error}") from None
        primary = of_shape(primary, spec.primary_shape, f"with L = {L}, primary")
        secondary = of_shape(secondary, spec.secondary_shape, f"with M = {M}, secondary")
        mine = composed_kernel(primary, secondary, spec)
        flat = mine.reshape(shape[0], -1), kernel.reshape(shape[0], -1)
        text = f"the shapes fit, but multiplied out your block is not the kernel of shape {shape}"
        compare(*flat, "channel of x'", "channel of x, tap", text)


def paths(i, o, order, L, M):
    """Return the permuted channels through which channel i of x reaches channel o of W_d ȳ."""
    return [p for p, c in enumerate(order) if c // M == i // M and p // L == o // L]


def show_path(i, o, order, L, M):
    """Draw the wires of y, and thick those that carry channel i of x to channel o of W_d ȳ."""
    G = L * M
    _, axes = plt.subplots(figsize=(8, 0.35 * G + 1), layout="constrained")
    for p, c in enumerate(order):
        axes.plot([1, 2], [-c, -p], color="#BBBBBB")
    for p in paths(i, o, order, L, M):
        axes.plot([0, 1, 2, 3], [-i, -order[p], -p, -o], color=WRONG, lw=3, marker="o")
    for group in range(L + M):  # brackets: what is in one partition
        x, n, first = (0.9, M, group) if group < L else (2.1, L, group - L)
        axes.plot([x, x], [-first * n + 0.3, -(first + 1) * n + 0.7], color="black", lw=2)
    axes.set(
        xticks=range(4),
        xticklabels=["x", "y", r"$\bar y$", r"$\bar z$"],
        title="black bars: partitions",
    )
    axes.set(yticks=-np.arange(G), yticklabels=range(G), ylabel="channel")
    plt.show()


@puzzle(6)
def never_meet(answer):
    """Two channels without a path, in blocks with random permutations."""
    rng = np.random.default_rng(6)
    for L, M in 3 * ((2, 3), (3, 2), (4, 3), (3, 4), (5, 2)):
        met, channels = [], range(L * M)
        while all(met):  # until some pair does not meet
            order = rng.permutation(L * M)
            met = [paths(i, o, order, L, M) for i in channels for o in channels]
        i, o = (whole(c, "a channel") for c in tuple_of(ask(answer, order, L, M), "i, o"))
        assert {i, o} <= set(channels), f"({i}, {o}): there are channels 0 to {L * M - 1}"
        if paths(i, o, order, L, M):
            show_path(i, o, order, L, M)
            raise AssertionError(
                f"L = {L}, M = {M}, order = {order.tolist()}: channel {i} of x does reach "
                f"channel {o}; see the thick lines"
            )


@puzzle(7)
def other_shuffle(shuffle, times_home):
    """ShuffleNet's shuffle and its period, against powers of `interleave`."""
    for g, size in ((3, 2), (2, 3), (3, 3), (4, 2), (3, 5), (6, 4), (1, 4)):
        C = g * size
        matrix = interleave(g, size)
        of_shape(mine := ask(shuffle, C, g), (C,), "the shuffle")
        mine = np.asarray(mine)
        assert mine.dtype.kind in "iu", f"the shuffle holds {mine.dtype}; an index is an integer"
        assert set(mine.tolist()) == set(range(C)), f"{mine.tolist()} is no order of 0 to {C - 1}"
        if not np.array_equal(mine, matrix.argmax(axis=1)):
            show_wires(np.eye(C)[mine], matrix, ["before", "after"])
            raise AssertionError(f"C = {C}, g = {g}: the dashed wires go to the wrong channel")
    for g, size in ((3, 3), (3, 2), (2, 3), (4, 2), (3, 5), (6, 4), (1, 4)):
        times, matrix = whole(ask(times_home, g * size, g), "the count"), interleave(g, size)
        where = f"C = {g * size}, g = {g}: {times} times"
        assert times > 0, f"{where}? Count from 1"
        after, home = np.linalg.matrix_power(matrix, times), np.eye(g * size)
        if not np.array_equal(after, home):
            show_wires(after, home, ["first", f"after {times}"])
            raise AssertionError(f"{where}, and the channels on dashed wires are not home")
        now, least = matrix, 1
        while not np.array_equal(now, home):
            now, least = matrix @ now, least + 1
        assert times == least, f"{where} is right, but fewer are enough"


# -- 8 and 9: backward, the nearest block ----------------------------------------------------------


@puzzle(8)
def backward_columns(answer):
    """Three gradients, against difference quotients of every entry."""
    rng, names = np.random.default_rng(8), ("dZ", "dW_p", "dW_d")
    for spec in (IGCSpec.square(3, 2, 1), IGCSpec.square(2, 3, 1), IGCSpec(4, 8, 2, 2, 1)):
        W_p, P, W_d = matrices(*random_weights(spec, rng), spec)
        P_1, D = first_permutation(spec), rng.normal(size=(spec.out_channels, 3))
        arguments = (rng.normal(size=(W_p.shape[1], 3)), W_p, W_d)
        mine = tuple_of(ask(answer, D, *arguments, P, P_1, spec), ", ".join(names))
        for i, (name, argument) in enumerate(zip(names, arguments, strict=True)):
            found = of_shape(mine[i], argument.shape, name)
            right = np.zeros_like(argument)
            for cell in np.ndindex(right.shape):  # the loss is linear: its value at a step of 1
                step = np.zeros_like(right)
                step[cell] = 1
                Z, A, B = (step if j == i else a for j, a in enumerate(arguments))
                x_new = P @ blockmask(B, spec.M) @ P_1 @ blockmask(A, spec.L) @ Z
                right[cell] = np.sum(D * x_new)
            sentence = f"{spec}: {name} is not what difference quotients say; see the hatched cells"
            compare(found, right, "row", f"column of {name}", sentence)


@puzzle(9)
def nearest(answer):
    """The nearest IGC: its distance, slice by slice, against discarded singular values."""
    rng = np.random.default_rng(9)
    for inp, L, M, k in ((6, 3, 2, 1), (6, 2, 3, 3), (8, 4, 2, 1), (9, 3, 4, 2)):
        spec = IGCSpec(inp, L * M, L, M, k)
        kernel = rng.normal(size=spec.composed_shape)
        pair = tuple_of(ask(answer, kernel, L, M), "primary, secondary")
        primary = of_shape(pair[0], spec.primary_shape, "primary")
        secondary = of_shape(pair[1], spec.secondary_shape, "secondary")
        error = (composed_kernel(primary, secondary, spec) - kernel).reshape(L, M, L, -1)
        mine = np.sqrt((error**2).sum(axis=(0, 3)))  # (m, b)
        least = np.sqrt((singular_values(kernel, L, M)[..., 1:] ** 2).sum(axis=-1))
        if not differs(mine, least).any():
            continue
        at, names = np.arange(L * M), [f"{m}, {b}" for m in range(M) for b in range(L)]
        _, axes = plt.subplots(figsize=(8, 3), layout="constrained")
        axes.bar(at - 0.2, mine.ravel(), 0.4, color=WRONG, hatch="//", ec="black", label="yours")
        axes.bar(at + 0.2, least.ravel(), 0.4, color="white", ec="black", label="least possible")
        axes.set(xticks=at, xticklabels=names, xlabel="slice: m, b", ylabel="‖K − K'‖ of the slice")
        axes.legend()
        plt.show()
        far = int((mine - least).argmax())
        raise AssertionError(
            f"L = {L}, M = {M}: {differs(mine, least).sum()} slices of {L * M} are not as near as "
            f"they could be; slice (m, b) = ({names[far]}) is the worst"
        )


# -- 10 to 12: CUDA on the CPU ---------------------------------------------------------------------


def judge_kernel(source, name, grid, block, inputs, numbers, right, what):
    """Run a reader's kernel and compare its output, (channels, positions), with the right one."""
    if problem := puzzle_kernels.problem():
        raise Unjudged(f"cannot be checked here: {problem}")
    assert isinstance(source, str), "the answer is a string: the text of the kernel"
    mine = puzzle_kernels.run(source, name, grid, block, inputs, right.shape, numbers)
    labels = "position of the image", "channel"
    if (nan := np.isnan(mine).sum()) or (left := (mine <= puzzle_kernels.UNWRITTEN / 2).sum()):
        fault = f"{nan} numbers are NaN: made from shared memory that no thread had written"
        if not nan:
            fault = f"{left} numbers of the output were not written, or something was added to them"
        show_cells(mine, right, *labels[::-1])
        raise AssertionError(f"{what}: {fault}; see the hatched cells")
    compare(mine, right, *labels[::-1], f"{what}: it runs, but the hatched numbers are wrong")
    assert name == "shuffle" or "__shared__" in source, "right, but it uses no shared memory"


@puzzle(10)
def shuffle_kernel(source):
    """Pᵀ as a kernel, one thread for each number, against the matrix."""
    rng = np.random.default_rng(10)
    for L, size, pixels in ((3, 2, 35), (2, 5, 16)):
        y = rng.normal(size=(L * size, pixels)).astype(np.float32)
        grid, right = (-(-y.size // 32),), interleave(L, size) @ y
        what = f"L = {L}, size = {size}, {pixels} pixels"
        judge_kernel(source, "shuffle", grid, (32,), [y], (L, size, pixels), right, what)


@puzzle(11)
def group_kernel(source):
    """A group convolution, one block of threads for each position and partition, against W_p Z."""
    rng, (H, W) = np.random.default_rng(11), (3, 5)
    for spec in (IGCSpec(6, 4, 2, 1), IGCSpec(3, 12, 3, 1, 1)):
        primary, secondary = random_weights(spec, rng)
        x = rng.normal(size=(1, spec.in_channels, H, W))
        right = matrices(primary, secondary, spec).W_p @ unfold(x, spec.kernel_size)
        numbers = (H, W, spec.kernel_size, spec.in_channels // spec.L)
        launch = (H * W, spec.L), (spec.out_channels // spec.L,), [x, primary], numbers
        judge_kernel(source, "group_convolution", *launch, right, f"{spec}, {H} x {W} pixels")


@puzzle(12)
def block_kernel(source):
    """The whole block in one kernel, one block of threads for each position, against `forward`."""
    rng, (H, W) = np.random.default_rng(12), (3, 5)
    for spec in (SQUARE, IGCSpec(4, 8, 2, 2)):
        primary, secondary = random_weights(spec, rng)
        x = rng.normal(size=(1, spec.in_channels, H, W))
        right = forward(x, primary, secondary, spec).reshape(spec.out_channels, -1)
        numbers = (H, W, spec.kernel_size, spec.in_channels, spec.L, spec.M)
        launch = (H * W,), (spec.out_channels,), [x, primary, secondary], numbers
        judge_kernel(source, "igc_block", *launch, right, f"{spec}, {H} x {W} pixels")
