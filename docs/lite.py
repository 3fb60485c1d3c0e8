"""Build JupyterLite with the course, which runs in a browser: ``python docs/lite.py [options]``.

It writes build/site/lite and needs the extra ``lite``. It copies what a notebook finds beside it in
a clone, and adds the package as a wheel. In this copy each notebook begins with a cell that
installs the package; the notebooks in the repository need none. The options go to
``jupyter lite build``.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "site" / "lite"
INSTALL = {
    "cell_type": "code",
    "execution_count": None,
    "id": "install",
    "metadata": {},
    "outputs": [],
    "source": ["%pip install -q igc-ref ipywidgets"],
}


def copy_course(folder):
    """Copy the notebooks and the results that they show; add the cell that installs to each."""
    hidden = shutil.ignore_patterns(".*", "__pycache__")
    for part in ("notebooks", "benchmarks/results"):
        shutil.copytree(ROOT / part, folder / part, ignore=hidden)
    for path in (folder / "notebooks").glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"].insert(1, INSTALL)  # after the title
        notebook["metadata"]["kernelspec"]["name"] = "python"  # Pyodide's: no question which
        path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")


def main(options):
    """Build the wheel, then the site."""
    if not importlib.util.find_spec("jupyterlite_core"):
        sys.exit("JupyterLite is not installed: pip install -e '.[lite]'")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_course(folder / "course")
        wheel = [sys.executable, "-m", "build", "--wheel", "--outdir", folder / "wheels", ROOT]
        subprocess.run(wheel, check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-m", "jupyterlite_core", "build", "--lite-dir", folder]
        command += ["--contents", folder / "course", "--piplite-wheels", folder / "wheels"]
        command += ["--no-sourcemaps", "--no-libarchive", "--output-dir", OUTPUT, *options]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
