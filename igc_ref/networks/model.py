"""`build_model`, and a network on public images with its parameters by name."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends import GenericBackend, get_backend
from igc_ref.backends.operators.library import DTYPES, Array
from igc_ref.errors import CheckpointError, SpecError, TrainingError, choice, instance, integer
from igc_ref.networks.architecture import Architecture
from igc_ref.networks.builder import Builder
from igc_ref.networks.layer import Layer, Row
from igc_ref.networks.layers import Conv2d
from igc_ref.networks.metadata import Metadata


def build_model(
    arch: str,
    depth: int,
    *,
    L: int | None = None,
    M: int | None = None,
    width: int | None = None,
    num_classes: int = 10,
    doubling: str = "M",
    kernel_sizes: tuple[int, ...] = (3,),
    gate: str = "none",
    keep: int | None = None,
    norm: str = "batch",
    dims: str = "2",
    in_channels: int = 3,
    backend: str | GenericBackend = "auto",
    dtype: str = "float32",
    seed: int = 0,
) -> Model:
    """Build one of the paper's networks with freshly drawn weights.

    Parameters
    ----------
    arch : str
        A family, ``plain``, ``resnet`` ("+Ident." in the paper) or ``imagenet``, of regular
        convolutions; or with ``_igc`` of IGC blocks. ``plain`` and ``resnet`` also have the paper's
        baselines, ``_fusion`` (group convolution with summation fusion) and ``_xception`` (M = 1).
        Besides ``plain_igcv2``, ``igcv3``, ``densenet_bc`` and ``densenet_bc_igc``. See
        `architecture.ARCHITECTURES`.
    depth : int
        Layers: ``3n + 2`` for the plain networks; even and at least 8 for the residual ones; 18
        for the ImageNet ones; 54, 99, ... for IGCV3; ``6n + 4`` for DenseNet-BC.
    L, M : int
        Primary and secondary partitions in the first stage; IGC and fusion networks only.
    width : int
        Channels of the first stage; networks without L and M only. IGCV3: of the stem. DenseNet-BC:
        the growth rate, which is L*M in ``densenet_bc_igc``.
    num_classes : int
    doubling : {"M", "L"}
        Which of the two doubles with the width; the other stays. With "L", M must be even, and an
        ImageNet network has half as wide a stem (the paper's L100M2).
    kernel_sizes, gate, keep, norm, dims
        As in `TrainConfig`; ``plain`` and ``resnet`` networks only, `norm` in a DenseNet-BC too.
    in_channels : int
        Channels of the images, or of the sequences, which are images of height 1.
    backend : {"auto", "numpy", "numba", "cupy"} or a backend object
    dtype : {"float32", "float64"}
    seed : int
        Seed of the weights; the same on every backend.

    Returns
    -------
    Model

    Raises
    ------
    SpecError
        If no such network exists; names the number.
    BackendError
        If the backend cannot run here.

    Examples
    --------
    >>> model = build_model("plain_igc", 8, L=4, M=8, backend="numpy")
    >>> logits = model.forward(np.zeros((2, 3, 32, 32), "float32"), train=True)
    >>> dx = model.backward(np.ones_like(logits))
    >>> logits.shape, dx.shape, model.gradients()["stage1.block1.igc.primary"].shape
    ((2, 10), (2, 3, 32, 32), (32, 8, 3, 3))
    """
    form = kernel_sizes, gate, keep, norm, dims, in_channels
    architecture = Architecture(arch, depth, L, M, width, num_classes, doubling, *form)
    return build(architecture, backend, dtype, seed)


def build(
    architecture: Architecture,
    backend: str | GenericBackend = "auto",
    dtype: str = "float32",
    seed: int = 0,
    *,
    bn_momentum: float | None = None,
) -> Model:
    """Build the network that `architecture` names; see `build_model` and `Builder`."""
    choice("dtype", dtype, DTYPES)
    if not isinstance(backend, GenericBackend):
        backend = get_backend(backend)
    rng = np.random.default_rng(integer("seed", seed, minimum=0))
    network = Builder(architecture, backend, dtype, rng, bn_momentum=bn_momentum).network()
    return Model(architecture, network, backend, dtype)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network says of N images: ``probabilities`` (N, classes), and names of the classes.

    Examples
    --------
    >>> Prediction(np.array([[0.25, 0.75]]), ("cat", "dog")).top(2)
    [[('dog', 0.75), ('cat', 0.25)]]
    """

    probabilities: npt.NDArray[np.float64]
    classes: tuple[str, ...]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Number of the most probable class of each image, shape (N,); of equals the first."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    def top(self, k: int) -> list[list[tuple[str, float]]]:
        """Return name and probability of the k most probable classes of each image, in order."""
        k = integer("k", k, maximum=len(self.classes))
        order = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        rows = zip(self.probabilities, order, strict=True)
        return [[(self.classes[c], float(row[c])) for c in best] for row, best in rows]


class Model:
    """A network on public images (N, in_channels, H, W), with its parameters by name.

    Attributes
    ----------
    architecture : Architecture
    network : Layer
        Its layers, on batches in the backend's own layout.
    backend : GenericBackend
    dtype : str
    metadata : Metadata or None
        What its inputs and outputs mean; None before it is trained.
    """

    def __init__(
        self, architecture: Architecture, network: Layer, backend: GenericBackend, dtype: str
    ) -> None:
        self.architecture, self.backend, self.dtype = architecture, backend, dtype
        self.network = network
        self.metadata: Metadata | None = None
        self._first = next(part for _, part in network.named_layers() if isinstance(part, Conv2d))
        self._images_shape = f"(N, {architecture.in_channels}, H, W)"
        self._logits_shape: tuple[int, ...] | str = ""

    def forward(self, x: Array, train: bool = False) -> Array:
        """Compute logits (N, num_classes) of images (N, in_channels, H, W).

        Parameters
        ----------
        x : array of the backend's library and the model's dtype
        train : bool
            Normalise by the statistics of the batch and update the running ones, which are used
            otherwise.

        Raises
        ------
        TypeError
            If x belongs to another library or has another dtype; nothing is moved silently.
        SpecError
            If x has another shape.
        """
        self.backend.check("x", x, self.dtype, shape=self._images_shape)
        return self.forward_inside(self.backend.to_layout(x), train)

    def forward_inside(self, x: Array, train: bool = False) -> Array:
        """Compute logits of a batch that is in the backend's own layout; see `forward`."""
        logits = self.network.forward(x, train)
        self._logits_shape = logits.shape
        return logits

    def predict(self, images: Array, batch_size: int = 256) -> Prediction:
        """Predict the classes of images (N, in_channels, H, W).

        Parameters
        ----------
        images : array of uint8 or the model's dtype, of a library as in `GenericBackend.asarray`
            Bytes are normalised by the mean and std of `metadata`; floats are taken as they are.
        batch_size : int
            Images at a time; changes memory, not the result beyond rounding.

        Raises
        ------
        TypeError, SpecError
            If the images are none of these, or bytes for a network that has no metadata.
        TrainingError
            If a logit is not finite.

        Examples
        --------
        >>> model = build_model("plain", 5, width=4, backend="numpy")
        >>> model.predict(np.zeros((7, 3, 32, 32), "float32")).labels.shape
        (7,)
        """
        backend, about, batch_size = self.backend, self.metadata, integer("batch_size", batch_size)
        classes, results = self.architecture.num_classes, []
        names = tuple(map(str, range(classes))) if about is None else about.classes
        if len(names) != classes:
            raise SpecError(f"the metadata has {len(names)} classes, the network {classes}")
        x = backend.asarray(images)
        backend.check("images", x, "uint8", self.dtype, shape=self._images_shape)
        with backend.session():
            for start in range(0, len(x), batch_size):
                batch = x[start : start + batch_size]
                if batch.dtype == np.uint8:
                    if about is None:
                        raise SpecError(f"without metadata, images must be normalised {self.dtype}")
                    batch = backend.normalise(batch, about.mean, about.std, self.dtype)
                results.append(self.forward(batch))
            self.forget()
            logits = backend.to_numpy(backend.xp.concatenate(results)).astype(np.float64)
            if not (finite := np.isfinite(logits).all(axis=1)).all():
                raise TrainingError(f"image {int(finite.argmin())} has logits that are not finite")
            exp = np.exp(logits - logits.max(axis=1, keepdims=True))
        return Prediction(exp / exp.sum(axis=1, keepdims=True), names)

    def backward(self, dlogits: Array, input_gradient: bool = True) -> Array | None:
        """Pull dlogits (N, num_classes) back to the images, and fill `gradients`.

        Parameters
        ----------
        dlogits : array, shape (N, num_classes)
        input_gradient : bool
            Whether to compute the gradient with respect to the images; training needs none.

        Returns
        -------
        dx : array, shape (N, in_channels, H, W), or None if it was not asked for

        Raises
        ------
        RuntimeError
            If no forward pass went before.
        TypeError, SpecError
            If dlogits belongs to another library or has another dtype or shape than the logits.
        """
        self.backend.check("dlogits", dlogits, self.dtype, shape=self._logits_shape)
        self._first.input_gradient = input_gradient
        dx = self.network.backward(dlogits)
        return self.backend.from_layout(dx, gradient=True) if input_gradient else None

    def forget(self) -> None:
        """Free what the last forward pass saved, if no `backward` is to follow."""
        for _, layer in self.network.named_layers():
            layer._saved = None

    def parameters(self) -> dict[str, Array]:
        """Return the trained arrays by name, in the order in which data flows."""
        return self._collect("parameters")

    def gradients(self) -> dict[str, Array]:
        """Return the gradients of the last backward pass by name; empty before the first one."""
        return self._collect("gradients")

    def state_dict(self) -> dict[str, npt.NDArray[Any]]:
        """Return copies of all parameters and running statistics as NumPy arrays."""
        state = self._collect("parameters", "buffers")
        return {name: self.backend.to_numpy(array) for name, array in state.items()}

    def sha256(self) -> str:
        """Return the SHA-256 of all parameters and running statistics; see `sha256`."""
        return sha256(self.state_dict())

    def load_state_dict(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Overwrite all parameters and running statistics.

        Raises
        ------
        CheckpointError
            If names, shapes or dtypes differ; then nothing has been overwritten.
        """
        overwrite(self._collect("parameters", "buffers"), state, self.backend)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters, batch norm's gamma and beta included."""
        return sum(math.prod(array.shape) for array in self.parameters().values())

    def rows(self) -> list[Row]:
        """Return a summary line for every layer; costs are for one image of the intended size."""
        return list(self.network.rows(self.architecture.input_shape))

    def _collect(self, *kinds: str) -> dict[str, Array]:
        return {
            f"{name}.{key}": array
            for name, layer in self.network.named_layers()
            for kind in kinds
            for key, array in getattr(layer, kind).items()
        }


def sha256(state: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of a state as 64 hexadecimal digits.

    Of each array, in the order of their names, it hashes a line ``name dtype shape`` and then the
    numbers, little-endian, the last axis fastest.

    Examples
    --------
    >>> sha256({"bias": np.array([1.0, 2.0], "float32")})[:16]
    '4c60bef8da21bb95'
    """
    digest = hashlib.sha256()
    for name, array in sorted(state.items()):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def overwrite(
    own: Mapping[str, Array], state: Mapping[str, npt.NDArray[Any]], backend: GenericBackend
) -> None:
    """Overwrite arrays by name, or raise a CheckpointError before the first if any differs."""
    check_state(own, state)
    for name, array in own.items():
        array[...] = backend.asarray(np.asarray(state[name]))


def check_state(own: Mapping[str, Array], state: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise a CheckpointError that names the first array whose name, shape or dtype differs."""
    instance("state", state, Mapping)
    for name in [*own, *state]:
        if name not in state or name not in own:
            where = "lacks" if name not in state else "has, but the network has not,"
            raise CheckpointError(f"the state {where} {name!r}: another architecture?")
        found, needed = np.asarray(state[name]), own[name]
        if found.shape != needed.shape or found.dtype != needed.dtype:
            raise CheckpointError(
                f"{name} is {found.dtype} of shape {found.shape}; "
                f"the network needs {needed.dtype} of shape {needed.shape}"
            )
