"""The numba backend's kernels, from the inside out.

`vectors` says what a vector of this processor is and writes instructions for it; `tiles` and
`rows` are the innermost loops, sums of products and single numbers; `convolve` makes of them the
block x' = P W_d Pᵀ W_p x and its derivatives, `pointwise` everything else; `plan` computes where
things lie; `pictures` holds a batch and its memory; `threads` shares out the work; `reading` and
`blocks` are the operators that call the kernels.
"""
