"""The numba backend, from the innermost loops outwards.

`vectors` says what a vector of this processor is and writes instructions for it, `layout` which
number of a batch lies in which lane; `tiles` and `rows` are the innermost loops, sums of products
and single numbers; `convolve` makes of them the block x' = P W_d Pᵀ W_p x and its derivatives,
`pointwise` everything else; `plan` computes where things lie; `batch` holds a batch and its memory;
`threads` shares out the work; `base` brings a batch in and out; `convolution` and `backend` are the
operators that call the kernels; `warm_up` compiles them all.
"""
