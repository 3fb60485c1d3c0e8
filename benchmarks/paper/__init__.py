"""The paper's claims beside our measurements: ``python -m benchmarks.paper``.

- `published`: what the paper and the authors' definitions say.
- `record`: finished runs, collected into ``benchmarks/results/paper.json``.
- `claims`: each claim, our figure, and a verdict that follows from the two.
- `document`: all of it as ``docs/paper.md``.
"""
