"""Our own CUDA kernels, and the operators that launch them.

``*.cu`` hold the kernels, ``*.cuh`` what they share; begin with ``block.cuh``, ``block_forward.cu``
and ``block_backward.cu``. Nothing here imports CuPy: a `Device` hands in the library, so that the
tests can run all of it, host code and kernels, on NumPy arrays and an emulator.

    device.py    what is asked of a library: arrays, compilation, CUDA graphs
    kernels.py   a source and its macros, compiled once, launched by name
    tiles.py     how a block of pictures is shared out among threads
    pictures.py  a batch as the layers carry it, with what is still to be applied to it
    reading.py   how an operator gets at the numbers of such a batch
    blocks.py    the IGC block and group convolution
    learning.py  linear layer, loss, optimiser
    operators.py batch norm and the rest; all together
    steps.py     whole training steps, replayed as a CUDA graph
"""
