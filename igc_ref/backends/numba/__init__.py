"""The numba backend, from the innermost loops outwards.

* `vectors`: what a vector of this processor is, instructions for it, the cache of kernels
* `layout`: which number of a batch lies in which block, row and lane
* `winograd`: the matrices of Winograd's transform, which saves half of the products of wide groups
* `tiles`: sums of products in registers; `rows`: numbers one by one, images into lanes and back
* `convolve`: kernels of the block x' = P W_d Pᵀ W_p x and of its derivatives, made of those
* `pointwise`: kernels of everything else
* `plan`: how a convolution is cut into pieces, and where each number lies
* `batch`: a batch and its memory; `threads`: who computes which piece
* `base`: a batch comes in and goes out; `convolution`, `backend`: the operators
* `warm_up`: compile the kernels, or load them from the cache
"""

asked_lanes: int | None = None  # what `vectors` takes when it is imported; None: the processor's
