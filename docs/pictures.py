"""Draw the pictures of the README: ``python docs/pictures.py`` writes them beside this file."""

from pathlib import Path

import numpy as np

from igc_ref import IGCSpec, plots
from igc_ref.reference import first_permutation, matrices

spec = IGCSpec.square(L=3, M=2)
W_p, P, W_d = matrices(np.ones(spec.primary_shape), np.ones(spec.secondary_shape), spec)
figure = plots.draw_block((P, W_d, first_permutation(spec), W_p), spec)
plots.save(figure, Path(__file__).with_name("matrices.svg"))
