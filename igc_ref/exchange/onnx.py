"""Networks as ONNX files, of standard operators only, and our own files back. Needs onnx."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import numpy.typing as npt

import igc_ref
from igc_ref.errors import (
    BackendError,
    CheckpointError,
    SpecError,
    choice,
    describe,
    instance,
    integer,
    user_path,
)
from igc_ref.exchange import header
from igc_ref.files import replacing
from igc_ref.networks.blocks import IGC, IGCV2, IGCV3, Shuffle
from igc_ref.networks.layer import Layer, Residual, Sequential
from igc_ref.networks.layers import BN_EPS, BatchNorm, Conv2d, GlobalAveragePool, Linear, MaxPool
from igc_ref.networks.model import Model
from igc_ref.reference import block, products
from igc_ref.spec.block import output_length

try:
    import onnx
except ImportError as error:
    raise BackendError('onnx is not installed: pip install "igc-ref[onnx]"') from error

OPSET, IR_VERSION = 17, 8  # read by onnxruntime from 1.12 on (2022)
SHUFFLES = ("reshape", "gather", "composed")
MAX_BYTES = 2**31 - 1  # protobuf's own limit

Array = npt.NDArray[Any]


def save(
    model: Model,
    path: str | os.PathLike[str],
    *,
    shuffle: str = "reshape",
    fold_bn: bool = False,
    batch: int | None = None,
) -> None:
    """Write a network in evaluation mode as an ONNX file, whole or not at all.

    The input is ``images`` (N, 3, H, W), normalised: ``(pixel - mean) / std``, pixels from 0 to
    255. The output is ``logits`` (N, num_classes). Height and width are fixed: those of
    ``model.metadata.size``, or those that the architecture was designed for.

    Parameters
    ----------
    model : Model
        Float32 or float64; onnxruntime has no float64 convolution on a CPU.
    path : str or path
    shuffle : {"reshape", "gather", "composed"}
        How channels are permuted. "reshape": Reshape, Transpose, Reshape, as PyTorch exports it.
        "gather": one Gather on the channel axis. "composed": every IGC, fusion and IGCV2 block is
        multiplied out into one dense convolution, with more multiply-adds (10 times as many at
        L24M2). IGCV3 has batch norm between its factors, so its shuffles stay, as Gather.
    fold_bn : bool
        Multiply batch norm into the weights, and a bias, of the convolution before it.
    batch : int, optional
        N; by default any, an axis "N".

    Raises
    ------
    SpecError
        If an argument is none of these, or the file would have more than 2 GiB.

    Notes
    -----
    Opset 17. Weights are named as in `Model.state_dict`. ``metadata_props`` has what `load` needs
    under "igc_ref", and after training "classes", "mean" and "std" as JSON. ONNX keeps batch norm's
    epsilon as float32, so that float64 logits differ from ours by about 1e-12 unless it is folded.

    Examples
    --------
    >>> from igc_ref import build_model
    >>> save(build_model("plain_igc", 8, L=4, M=8), "model.onnx")
    >>> [[axis.dim_param or axis.dim_value for axis in x.type.tensor_type.shape.dim]
    ...  for x in onnx.load("model.onnx").graph.input]
    [['N', 3, 32, 32]]
    """
    place = user_path("path", path)
    proto = to_onnx(model, shuffle=shuffle, fold_bn=fold_bn, batch=batch)
    with replacing(place) as file:
        file.write(proto.SerializeToString())


def to_onnx(
    model: Model, *, shuffle: str = "reshape", fold_bn: bool = False, batch: int | None = None
) -> Any:
    """Return a network as an ``onnx.ModelProto``, checked by onnx's checker; see `save`."""
    instance("model", model, Model)
    choice("shuffle", shuffle, SHUFFLES)
    instance("fold_bn", fold_bn, bool)
    axis = "N" if batch is None else integer("batch", batch)
    about = model.metadata
    channels, *size = model.architecture.input_shape
    size = list(about.size) if about else size
    graph = _Graph(model, shuffle, fold_bn, size)
    graph.add(model.network, "images")
    graph.nodes[-1].output[0] = "logits"
    if sum(array.nbytes for array in graph.arrays.values()) > MAX_BYTES - 2 * header.LONGEST:
        raise SpecError(f"{model.architecture} in ONNX has more than 2 GiB, which no file may have")
    real = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(model.dtype))
    value = onnx.helper.make_tensor_value_info
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            str(model.architecture),
            [value("images", real, [axis, channels, *size])],
            [value("logits", real, [axis, model.architecture.num_classes])],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.arrays.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="igc_ref",
        producer_version=igc_ref.__version__,
    )
    more = {name: json.dumps(getattr(about, name)) for name in ("classes", "mean", "std") if about}
    own = header.write(model, shuffle=shuffle, fold_bn=fold_bn)
    onnx.helper.set_model_props(proto, {header.KEY: own} | more)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def load(path: str | os.PathLike[str], backend: str = "auto") -> Model:
    """Read the network of a file that `save` wrote, every weight bit for bit.

    Only weights are read: of a graph that another program has changed since, the change is lost.

    Parameters
    ----------
    path : str or path
    backend : str
        As in `build_model`.

    Returns
    -------
    Model

    Raises
    ------
    CheckpointError
        If there is no such file, it is damaged, or `save` did not write it; if it has not all
        weights: of what was written with ``fold_bn`` or as "composed", they are lost.
    """
    place = user_path("path", path)
    if not place.is_file():
        raise CheckpointError(f"there is no file {place}")
    if place.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{place} has more than 2 GiB, which no ONNX file may have")
    try:
        proto = onnx.load_model_from_string(place.read_bytes())
        about = {entry.key: entry.value for entry in proto.metadata_props}
        model, told = header.read(about.get(header.KEY), str(place), backend)
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        arrays = {}
        for name in model.state_dict():
            if name not in tensors:
                how = {key: told.get(key) for key in ("shuffle", "fold_bn")}
                raise CheckpointError(f"{place} lacks {name!r}; it was written with {how}")
            if onnx.external_data_helper.uses_external_data(tensors[name]):
                raise CheckpointError(f"{place} has {name!r} in another file, which is not read")
            array = onnx.numpy_helper.to_array(tensors[name])
            arrays[name] = array[..., 0, 0] if name.endswith(".secondary") else array
    except CheckpointError:
        raise
    except Exception as error:  # protobuf and onnx fail in many ways
        raise CheckpointError(f"{place} is damaged or no ONNX: {describe(error, 300)}") from error
    model.load_state_dict(arrays)
    return model


class _Graph:
    """Nodes and arrays of a network, in the order in which data flows."""

    def __init__(self, model: Model, shuffle: str, fold_bn: bool, size: list[int]) -> None:
        self.dtype, self.to_numpy = model.dtype, model.backend.to_numpy
        self.shuffle, self.fold_bn = shuffle, fold_bn
        self.nodes: list[Any] = []
        self.arrays: dict[str, Array] = {}
        self.sizes = {"images": size}  # height and width of every value
        self.order: Array  # where the channels of the last convolution are now

    def add(self, layer: Layer, x: str, place: str = "") -> str:
        """Add a layer on the value x; return its output's name."""
        composed, y = self.shuffle == "composed", x
        own = {k: self.to_numpy(a) for k, a in (layer.parameters | layer.buffers).items()}
        match layer:
            case Residual():
                parts = {"shortcut": x, "branch": x}
                for name, child in layer.children.items():
                    parts[name] = self.add(child, x, f"{place}.{name}")
                return self.node("Relu", self.node("Add", parts["branch"], parts["shortcut"]))
            case IGCV2() if composed:
                convs = [c for c in layer.children.values() if isinstance(c, Conv2d)]
                weights = [self.to_numpy(conv.parameters["weight"]) for conv in convs]
                kernel = products.composed_kernel(weights, layer.spec)
                return self.convolve(x, f"{place}.composed", kernel, layer.spec.stride)
            case Sequential():
                for name, child in layer.children.items():
                    y = self.add(child, y, f"{place}.{name}" if place else name)
                is_residual = isinstance(layer, IGCV3) and layer.spec.is_residual
                return self.node("Add", y, x) if is_residual else y
            case IGC():
                own |= {name: self.to_numpy(array) for name, array in layer.fixed.items()}
                if composed:
                    kernel = block.composed_kernel(**own, spec=layer.spec)
                    return self.convolve(x, f"{place}.composed", kernel, layer.spec.stride)
                own["secondary"] = own["secondary"][:, :, None, None]
                for (name, weight), f in zip(own.items(), layer.spec.factors, strict=True):
                    y = self.convolve(y, f"{place}.{name}", weight, f.stride, f.groups)
                    y = self.permute(y, f.deal)
                return y
            case Conv2d():
                return self.convolve(
                    x, f"{place}.weight", *own.values(), layer.stride, layer.groups
                )
            case Shuffle():
                return self.permute(x, layer.groups)
            case BatchNorm():
                return self.normalise(x, place, layer, own)
            case MaxPool():
                return self.slide("MaxPool", x, *layer.window)
            case GlobalAveragePool():
                return self.node("Flatten", self.node("GlobalAveragePool", x))
            case Linear():
                named = [self.array(f"{place}.{name}", array) for name, array in own.items()]
                return self.node("Gemm", x, *named, transB=1)
        raise NotImplementedError(f"{layer.describe()} in ONNX")

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; return its output's name."""
        y = f"{kind}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [y], y, **attributes))
        self.sizes[y] = self.sizes.get(inputs[0], [])
        return y

    def array(self, name: str, array: Array) -> str:
        """Add a constant; return its name."""
        self.arrays[name] = array if array.dtype.kind == "i" else array.astype(self.dtype)
        return name

    def slide(self, kind: str, x: str, k: int, stride: int, p: int, *more: str, **also: int) -> str:
        """Add an operator with a window k x k."""
        y = self.node(
            kind, x, *more, kernel_shape=[k, k], strides=[stride] * 2, pads=[p] * 4, **also
        )
        self.sizes[y] = [output_length(n, k, stride, p) for n in self.sizes[x]]
        return y

    def convolve(self, x: str, name: str, weight: Array, stride: int, groups: int = 1) -> str:
        """Add a convolution without bias."""
        k = weight.shape[-1]
        self.array(name, weight)
        self.order = np.arange(len(weight))
        return self.slide("Conv", x, k, stride, k // 2, name, group=groups)

    def permute(self, x: str, groups: int) -> str:
        """Add a shuffle of the channels of the last convolution."""
        H, W = self.sizes[x]
        C = len(self.order)
        dealt = np.arange(C).reshape(groups, -1).T.ravel()
        if groups in (1, C):
            return x
        self.order = self.order[dealt]
        if self.shuffle != "reshape":
            return self.node("Gather", x, self.array(f"shuffle_{groups}x{C}", dealt), axis=1)
        apart = np.array([0, groups, C // groups, H, W])  # 0: as it is, N
        y = self.node("Reshape", x, self.array(f"shape_{groups}x{C}x{H}x{W}", apart))
        y = self.node("Transpose", y, perm=[0, 2, 1, 3, 4])
        together = np.array([0, C, H, W])
        y = self.node("Reshape", y, self.array(f"shape_{C}x{H}x{W}", together))
        self.sizes[y] = [H, W]
        return y

    def normalise(self, x: str, place: str, layer: BatchNorm, own: dict[str, Array]) -> str:
        """Add batch norm, or multiply it into the convolution before it."""
        if self.fold_bn:
            scale = own["gamma"] / np.sqrt(own["running_var"].astype("float64") + BN_EPS)
            terms = np.stack([scale, own["beta"] - own["running_mean"] * scale])
            terms[:, self.order] = terms.copy()  # in the order of the convolution's own channels
            conv = next(node for node in reversed(self.nodes) if node.op_type == "Conv")
            name = conv.input[1]
            self.array(name, self.arrays[name] * terms[0, :, None, None, None])
            conv.input.append(self.array(f"{name.rpartition('.')[0]}.bias", terms[1]))
        else:
            named = [self.array(f"{place}.{name}", array) for name, array in own.items()]
            x = self.node("BatchNormalization", x, *named, epsilon=BN_EPS)
        return self.node("Relu", x) if layer.relu else x
