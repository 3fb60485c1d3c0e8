"""The generic backend: a library with NumPy's interface (`xp`) and every operator written on it.

Inside, images are held channels first: (C, N, H, W), unless a backend has a layout of its own:
layers only carry what `to_layout` and the operators return. A channel of the batch is then one long
row, a group convolution is one GEMM per group over long rows, and both permutations of the
block are transposed *views* that a GEMM writes through, never copies.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from igc_ref.backends.operators.augmentation import AugmentationOperators
from igc_ref.backends.operators.gates import GateOperators
from igc_ref.backends.operators.library import DTYPES, Array, EpochRunner, TrainingData
from igc_ref.backends.operators.normalisation import NormalisationOperators
from igc_ref.backends.operators.shared import SharedBatches
from igc_ref.errors import MISREAD, describe, is_array, kind_of
from igc_ref.report import Report


class GenericBackend(
    GateOperators,  # of convolutions, of pointwise operators and of those that learn
    NormalisationOperators,
    AugmentationOperators,
    SharedBatches,
):
    """One library and the operators on its arrays.

    An operator returns its output and what its backward form needs (``saved``, opaque to the
    caller): ``y, saved = backend.f(x, ...)``, then ``dx, ... = backend.f_backward(dy, saved)``.

    Attributes
    ----------
    name : str
        The backend's name, as `get_backend` takes it.
    xp : module
        The library of its arrays.
    tile_bytes : int
        Size of the scratch memory: convolutions take as many images at a time, and batch norm
        as many channels, as fit into it.
    """

    name: str
    xp: ModuleType
    tile_bytes: int

    def session(self) -> AbstractContextManager[None]:
        """Return a context to train or evaluate in; a backend may need preparations."""
        return np.errstate(under="ignore")  # a user may have made underflow an error

    def prepare(self, dtype: str, report: Report) -> None:
        """Get ready to compute in this dtype; if that takes long, `report` gets a line.

        Called before anything is timed. Without it, the first operators take that time.
        """

    def steps(
        self,
        learn: Callable[[Array, Array, Any], tuple[Array, Array]],  # noqa: ARG002
        pool: TrainingData,  # noqa: ARG002
        batch_size: int,  # noqa: ARG002
        padding: int,  # noqa: ARG002
        report: Report,  # noqa: ARG002
    ) -> EpochRunner | None:
        """Return what runs whole epochs on the device, or None if the caller is to go step by step.

        Parameters
        ----------
        learn : callable
            ``learn(x, labels, lr)`` takes one training step on images in the layout inside; it
            returns the loss and the number of correct answers.
        pool : TrainingData
            What the batches are drawn from.
        batch_size, padding : int
        report : callable
            Gets a line about what the user should know.
        """
        return None

    def asarray(self, array: Any, dtype: npt.DTypeLike | None = None) -> Array:
        """Copy an array into this backend's library: the only way in.

        It is a NumPy array, or another library's with ``__dlpack__`` that can be read where it
        lies: on the CPU, by cupy also on a card. A TypeError for anything else.
        """
        if not is_array(array):
            if isinstance(array, MISREAD) or not hasattr(array, "__dlpack__"):
                raise TypeError(f"asarray takes a numpy.ndarray, not {kind_of(array)}")
            try:
                on_a_card = array.__dlpack_device__()[0] in (2, 13)  # of CUDA, managed by CUDA
                array = (self.xp if on_a_card else np).from_dlpack(array)
            except Exception as error:  # each library refuses in a way of its own
                what = f"the {self.name} backend cannot read this {kind_of(array)} where it lies"
                raise TypeError(f"{what}: {describe(error)}") from error
        return self._bring(array, dtype)

    def _bring(self, array: npt.NDArray[Any], dtype: npt.DTypeLike | None) -> Array:
        """Copy a NumPy array, in its own dtype or another."""
        return self.xp.array(array, dtype=dtype)

    def to_numpy(self, array: Array) -> npt.NDArray[Any]:
        """Bring an array of this backend back as a NumPy array: the only way out."""
        self.check("array", array)
        return np.array(array)

    def to_layout(self, images: Array) -> Array:
        """Turn public images (N, C, H, W) into the layout inside, (C, N, H, W)."""
        self.check("images", images, *DTYPES, shape="(N, C, H, W)")
        return self.xp.array(images.swapaxes(0, 1), order="C")  # a copy, whatever N is

    def from_layout(self, x: Array, gradient: bool = False) -> Array:  # noqa: ARG002
        """Turn the layout inside, (C, N, H, W), back into public images (N, C, H, W).

        `gradient` says that these are gradients, which a backend may keep at another scale.
        """
        self.check_batch("x", x)
        return self.xp.array(x.swapaxes(0, 1), order="C")
