"""The cupy backend: our own CUDA kernels, and the operators that launch them.

``*.cu`` hold the kernels, ``*.cuh`` what they share; begin with ``block.cuh``, ``block_forward.cu``
and ``block_backward.cu``. Only ``backend.py`` and ``nccl.py`` import CuPy: elsewhere a `Device`
hands in the library, so that the tests can run host code and kernels on NumPy arrays and an
emulator.

    device.py        what is asked of a library: arrays, compilation, CUDA graphs
    kernels.py       a source and its macros, compiled once, launched by name
    geometry.py      the numbers of a block or group convolution, as block.cuh names them
    tiles.py         how a block of images is shared out among threads
    tiles.json       what tiles.py takes instead, for shapes that were timed on a card
    base.py          a batch in and out, and how an operator reads its numbers
    packing.py       weights in the order in which the block kernels read them
    convolution.py   the IGC block and group convolution
    loss_and_sgd.py  linear layer, loss, optimiser
    operators.py     batch norm and the rest; all together
    steps.py         whole training steps, replayed as a CUDA graph
    backend.py       the backend, and CuPy as its device
    nccl.py          several processes, a GPU each, that share every batch
"""
