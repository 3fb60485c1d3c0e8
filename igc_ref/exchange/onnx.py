"""Networks as ONNX files, of standard operators only, and our own files back. Needs onnx."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnx

from igc_ref import errors
from igc_ref.errors import CheckpointError, SpecError, describe
from igc_ref.exchange import header
from igc_ref.exchange.state import State
from igc_ref.files import replacing
from igc_ref.networks.blocks import IGC, IGCV3, MixedIGC, Shuffle
from igc_ref.networks.gates import Activation, GatedIGC
from igc_ref.networks.layer import Dense, Residual, Sequential
from igc_ref.networks.layers import (
    BN_EPS,
    AveragePool,
    BatchNorm,
    Conv2d,
    GlobalAveragePool,
    GroupNorm,
    Linear,
    MaxPool,
)
from igc_ref.networks.model import Model
from igc_ref.reference.block import composed_kernel
from igc_ref.spec.mixed import MixedSpec
from igc_ref.training.checkpoint import check_numbers

OPSET, IR_VERSION = 17, 8
MAX_BYTES = 2_000_000_000  # of weights: protobuf reads no file of 2 GiB


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    shuffle: str = "reshape",
    fold_bn: bool = False,
    batch: int | None = None,
) -> None:
    """Write a network in evaluation mode as an ONNX file of opset 17, whole or not at all.

    The input is ``images`` (N, C, H, W), of any height and width, normalised: ``(pixel - mean) /
    std``, pixels from 0 to 255. The output is ``logits`` (N, num_classes). After training,
    ``metadata_props`` has "classes", "mean" and "std" as JSON. Epsilon is a float32 unless folded.

    Parameters
    ----------
    model : Model
        Float32; or float64, for which onnxruntime has no convolution on a CPU.
    path : str or path
    shuffle : {"reshape", "gather", "composed"}
        Channels are permuted by Reshape, Transpose, Reshape, or by one Gather. "composed": every
        IGC and fusion block is one dense convolution, with more multiply-adds (10 times as many at
        L24M2); others have Gather.
    fold_bn : bool
        Multiply batch norm into the weights, and a bias, of the convolution before it; not in a
        DenseNet, whose batch norms come first.
    batch : int, optional
        N; by default any.

    Raises
    ------
    SpecError
        If an argument is none of these, the file would have more than 2 GB, or there is no batch
        norm to fold.

    Examples
    --------
    >>> from igc_ref import build_model
    >>> save(build_model("plain_igc", 8, L=4, M=8), "model.onnx", shuffle="gather")
    """
    errors.instance("model", model, Model)
    errors.choice("shuffle", shuffle, ("reshape", "gather", "composed"))
    errors.instance("fold_bn", fold_bn, bool)
    if fold_bn and model.architecture.norm != "batch":
        raise SpecError(f"fold_bn: {model.architecture} has no batch norm to fold into weights")
    N = "N" if batch is None else errors.integer("batch", batch)
    ends = (N, (a := model.architecture).in_channels, "H", "W"), (N, a.num_classes)
    proto = to_proto(model.network, *ends, model.dtype, shuffle, fold_bn)
    about = {header.KEY: header.write(model, shuffle=shuffle, fold_bn=fold_bn)}
    meaning = model.metadata.to_dict() if model.metadata else {}
    about |= {name: json.dumps(meaning[name]) for name in ("classes", "mean", "std") if meaning}
    onnx.helper.set_model_props(proto, about)
    with replacing(errors.user_path("path", path)) as file:
        file.write(proto.SerializeToString())


def to_proto(
    layer: Any, images: Any, logits: Any, dtype: str, shuffle: str = "reshape", fold_bn: bool = True
) -> Any:
    """Return a layer as an ``onnx.ModelProto``; the shapes of its ends are numbers or names."""
    graph = _Graph(shuffle, fold_bn)
    graph.add(layer, "images")
    graph.nodes[-1].output[0] = "logits"
    dtypes = {"i": "int64", "f": dtype}
    arrays = {name: a.astype(dtypes[a.dtype.kind]) for name, a in graph.arrays.items()}
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
        raise SpecError("the network has over 2 GB, which no ONNX file may have")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [
        [onnx.helper.make_tensor_value_info(name, kind, shape)]
        for name, shape in (("images", images), ("logits", logits))
    ]
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "igc_ref", *ends, tensors),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="igc_ref",
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


def load(path: str | os.PathLike[str], backend: str = "auto") -> Model:
    """Read the network of a file that `save` wrote: every weight, bit for bit, not the graph.

    Raises
    ------
    CheckpointError
        If there is no such file, `save` did not write it, or with ``fold_bn`` or as "composed".
    """
    place = errors.user_path("path", path)
    if not place.is_file():
        raise CheckpointError(f"there is no file {place}")
    data, arrays = place.read_bytes(), State()
    try:
        proto = onnx.load_model_from_string(data)
        about = {entry.key: entry.value for entry in proto.metadata_props}
        for tensor in proto.graph.initializer if header.KEY in about else ():
            if onnx.external_data_helper.uses_external_data(tensor):
                raise ValueError(f"{tensor.name!r} is in another file")
            array = onnx.numpy_helper.to_array(tensor)
            wide = tensor.name.endswith(".secondary") or array.ndim == 3  # the latter: group norm's
            arrays[tensor.name] = array[..., 0, 0] if wide else array
        check_numbers(arrays)
    except Exception as error:  # protobuf and onnx fail in many ways
        raise CheckpointError(f"{place} is no ONNX file to read: {describe(error, 300)}") from error
    shapes = [array.shape for array in arrays.values()]
    model, told = header.read(about.get(header.KEY), str(place), backend, shapes)
    own = model.state_dict()
    if lost := own.keys() - arrays:
        how = f"shuffle={told.get('shuffle')!r}, fold_bn={told.get('fold_bn')!r}"
        raise CheckpointError(f"{place} has no {min(lost)!r}: it was written with {how}")
    model.load_state_dict({name: arrays[name] for name in own})
    return model


class _Graph:
    """Nodes and constants of a network, in the order in which data flows."""

    def __init__(self, shuffle: str, fold_bn: bool) -> None:
        self.shuffle, self.fold_bn = shuffle, fold_bn
        self.nodes: list[Any] = []
        self.arrays: State = {}
        self.order: Any  # which channel of the last convolution is where

    def add(self, layer: Any, x: str, place: str = "") -> str:
        """Add a layer on the value x; return its output's name."""
        own = layer.parameters | layer.buffers | getattr(layer, "fixed", {})
        arrays = {f"{place}.{name}": layer.backend.to_numpy(array) for name, array in own.items()}
        match layer:
            case Residual():
                ends = [self.add(c, x, f"{place}.{name}") for name, c in layer.children.items()]
                return self.node("Relu", [self.node("Add", [x, *ends][-2:])])
            case Sequential():
                if self.fold_bn and isinstance(layer, Dense):
                    raise SpecError("fold_bn: the batch norms of a DenseNet follow no convolution")
                y = x
                for name, child in layer.children.items():
                    y = self.add(child, y, f"{place}.{name}" if place else name)
                if isinstance(layer, Dense):
                    return self.node("Concat", [x, y], axis=1)
                plus_x = isinstance(layer, IGCV3) and layer.spec.is_residual
                return self.node("Add", [y, x]) if plus_x else y
            case IGC():
                return self.block(layer, x, arrays, place)
            case Conv2d():
                return self.convolve(x, *arrays.popitem(), layer.stride, layer.groups)
            case Shuffle():
                return self.permute(x, layer.groups)
            case BatchNorm():
                if self.fold_bn:
                    self.fold(*arrays.values())
                else:
                    x = self.node("BatchNormalization", [x], arrays, epsilon=BN_EPS)
                return self.node("Relu", [x]) if layer.relu else x
            case GroupNorm():
                y = self.group_norm(x, layer.groups, arrays)
                return self.node("Relu", [y]) if layer.relu else y
            case MaxPool():
                k, s, p = layer.window
                return self.node("MaxPool", [x], kernel_shape=[k, k], strides=[s, s], pads=[p] * 4)
            case AveragePool(kernel_size=k):
                return self.node("AveragePool", [x], kernel_shape=k, strides=k)
            case GlobalAveragePool():
                return self.node("Flatten", [self.node("GlobalAveragePool", [x])])
            case Linear():
                return self.node("Gemm", [x], arrays, transB=1)
            case Activation():
                return self.node(layer.kind.capitalize(), [x])
        raise NotImplementedError(f"{layer.describe()} in ONNX")

    def node(self, kind: str, inputs: list[str], constants: Any = (), **attributes: Any) -> str:
        """Add an operator, whose constants come last; return its output's name."""
        self.arrays |= constants
        names, y = [*inputs, *constants], f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, names, [y], y, **attributes))
        return y

    def convolve(self, x: str, name: str, weight: Any, stride: int, groups: int = 1) -> str:
        """Add a convolution."""
        self.order, kernel = np.arange(len(weight)), weight.shape[2:]
        window: Any = {"kernel_shape": kernel, "strides": [stride] * 2}
        window["pads"] = [k // 2 for k in kernel] * 2  # above, left, below, right
        return self.node("Conv", [x], {name: weight}, group=groups, **window)

    def block(self, layer: IGC, x: str, arrays: State, place: str) -> str:
        """Add an IGC block, as one convolution if it is to be composed."""
        (*primary, (name, secondary)), (first, last) = arrays.items(), layer.spec.factors
        if isinstance(layer, MixedIGC):
            y = self.runs(x, primary, layer.spec)
        elif self.shuffle == "composed" and not isinstance(layer, GatedIGC):
            kernel = composed_kernel(primary[0][1], secondary, layer.spec)
            return self.convolve(x, f"{place}.composed", kernel, first.stride)
        else:
            y = self.convolve(x, *primary[0], first.stride, first.groups)
        if isinstance(layer, GatedIGC):
            y = self.gate(layer, y if layer.by_channels else x, y, place)
        W_d = secondary.reshape(last.weight_shape)
        y = self.convolve(self.permute(y, first.deal), name, W_d, last.stride, last.groups)
        return self.permute(y, last.deal)

    def runs(self, x: str, kernels: list[tuple[str, Any]], spec: MixedSpec) -> str:
        """Add a convolution for every run of primary partitions."""
        self.arrays[sizes := f"{kernels[0][0]}.runs"] = np.array([r.in_channels for r in spec.runs])
        parts = [f"{sizes}.{i}" for i in range(len(kernels))]
        self.nodes.append(onnx.helper.make_node("Split", [x, sizes], parts, axis=1))
        each = zip(parts, kernels, spec.runs, strict=True)
        y = [self.convolve(part, *kernel, run.stride, run.groups) for part, kernel, run in each]
        self.order = np.arange(spec.out_channels)
        return self.node("Concat", y, axis=1)

    def gate(self, layer: GatedIGC, seen: str, y: str, place: str) -> str:
        """Multiply y = W_p x by what the means of `seen` give; of equals TopK takes the first."""
        means = self.node("Flatten", [self.node("GlobalAveragePool", [seen])])
        gates = self.add(layer.children["gate"], means, f"{place}.gate")
        if layer.keep is not None:
            zeros = self.node("Mul", [gates], {"zero": np.zeros(())})
            kept = self.node("TopK", [gates], {f"keep_{layer.keep}": np.array([layer.keep])})
            self.nodes[-1].output.append(places := f"{kept}_places")
            gates = self.node("ScatterElements", [zeros, places, kept], axis=1)
        if not layer.by_channels:
            L, out = layer.spec.L, layer.spec.out_channels
            partition = {f"partition_{L}_of_{out}": np.arange(out) // (out // L)}
            gates = self.node("Gather", [gates], partition, axis=1)
        return self.node("Mul", [y, self.node("Unsqueeze", [gates], {"axes": np.array([2, 3])})])

    def group_norm(self, x: str, groups: int, arrays: State) -> str:
        """Add a group norm: the groups as channels of instance norm, then gamma and beta."""
        apart = {f"groups_{groups}": np.array([0, groups, -1])}  # (N, groups, C/groups*H*W)
        plain = {
            f"{what}_{groups}": np.full(groups, float(what == "one")) for what in ("one", "no")
        }
        y = self.node("Reshape", [x], apart)
        y = self.node("InstanceNormalization", [y], plain, epsilon=BN_EPS)
        y = self.node("Reshape", [y, self.node("Shape", [x])])
        for kind, (name, array) in zip(("Mul", "Add"), arrays.items(), strict=True):
            y = self.node(kind, [y], {name: array[:, None, None]})
        return y

    def permute(self, x: str, groups: int) -> str:
        """Add a shuffle of channels, unless it changes nothing."""
        C = len(self.order)
        dealt = np.arange(C).reshape(groups, -1).T.ravel()
        self.order = self.order[dealt]
        if groups in (1, C):
            return x
        if self.shuffle != "reshape":
            return self.node("Gather", [x], {f"shuffle_{groups}_of_{C}": dealt}, axis=1)
        apart = np.array([0, groups, C // groups, -1])  # (N, groups, C/groups, H*W)
        y = self.node("Reshape", [x], {f"shape_{groups}_of_{C}": apart})
        y = self.node("Transpose", [y], perm=[0, 2, 1, 3])
        return self.node("Reshape", [y, self.node("Shape", [x])])

    def fold(self, gamma: Any, beta: Any, mean: Any, var: Any) -> None:
        """Multiply batch norm into the last convolution, whose channels may have been shuffled."""
        scale = gamma / np.sqrt(var.astype("float64") + BN_EPS)
        terms = np.stack([scale, beta - mean * scale])
        terms[:, self.order] = terms.copy()
        conv = next(node for node in reversed(self.nodes) if node.op_type == "Conv")
        weight = conv.input[1]
        self.arrays[weight] = self.arrays[weight] * terms[0, :, None, None, None]
        conv.input.append(f"{weight}.bias")
        self.arrays[f"{weight}.bias"] = terms[1]
