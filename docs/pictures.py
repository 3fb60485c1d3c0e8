"""Draw the picture of the README: ``python docs/pictures.py`` writes it beside this file."""

from pathlib import Path

from igc_ref import IGCSpec, plots

figure = plots.draw_wiring(IGCSpec.square(L=3, M=2), path=(0, 5))
plots.save(figure, Path(__file__).with_name("wiring.svg"))
