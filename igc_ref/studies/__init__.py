"""The paper's questions, asked again.

- `compare`: IGC, regular, summation-fusion and Xception networks at equal depth or equal cost.
- `sweep`: all (L, M) of nearly the same cost, each trained; width and accuracy side by side.
- `compress`: a trained regular network turned into an IGC network by the nearest blocks.
"""
