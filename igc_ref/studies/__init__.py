"""The paper's questions, asked again: what costs how much, which L and M, what a trained net keeps.

- `compare`: IGC, regular, summation-fusion and Xception networks at equal depth or equal budget.
- `sweep`: all (L, M) of nearly one cost, each trained, with the width beside its accuracy.
- `compress`: a trained regular network as IGC network, by the nearest blocks in closed form.
"""
