"""Into and out of the world around: ONNX, safetensors, PyTorch. Optional libraries, one a file.

- `header`: what an exported file says of its network.
- `state`: the names and layouts of weights in PyTorch.
"""
