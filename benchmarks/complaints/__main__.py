"""Write the tables of ``docs/complaints.md``; with ``--run``, measure first.

python -m benchmarks.complaints --run              # every script, in a process of its own
python -m benchmarks.complaints --run grouped      # one
"""

import argparse
import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from igc_ref.bench.record import available_threads, machine
from igc_ref.files import replacing, write_json
from igc_ref.report import markdown, say

ROOT = Path(__file__).parents[2]
PAGE, RECORD = ROOT / "docs" / "complaints.md", ROOT / "benchmarks" / "results" / "complaints.json"
NAMES = ("grouped", "channels_last", "jax_gradient", "determinism", "clock", "shuffles", "igcv3")
INSTALL = {"torch": '"igc-ref[torch]"', "numba": '"igc-ref[numba]"', "jax": "jax"}


def script(name):
    """Return the script of a complaint."""
    return import_module(f"benchmarks.complaints.{name}").SCRIPT


def written(page, record):
    """Return the page with the table and the outputs of a record."""
    rows = [["complaint", "measured", "seen here", "ours", "command"]]
    for name, entry in record.items():
        s, command = script(name), f"`python -m benchmarks.complaints --run {name}`"
        rows.append([f"{s.title} ({s.thread})", *s.answer(entry["found"]), command])
        where = ", ".join(f"{k} {v}" for k, v in entry["machine"].items() if v is not None)
        output = "\n\n".join(s.lines(entry["found"]))
        page = between(page, name, f"{command} ({where}):\n\n```text\n{output}\n```")
    return between(page, "table", markdown(rows))


def between(page, name, text):
    """Put a text between the marks of a name."""
    marked = f"<!-- {name} -->\n{text}\n<!-- to here -->"
    return re.sub(f"<!-- {name} -->.*?<!-- to here -->", lambda _: marked, page, flags=re.DOTALL)


def run(name):
    """Measure one complaint; where a library is missing, end with a line that names it."""
    try:
        found = script(name).measure()
    except ModuleNotFoundError as error:
        if error.name not in INSTALL:
            raise
        sys.exit(f"{name}: {error.name} is not installed: pip install {INSTALL[error.name]}")
    record = json.loads(RECORD.read_text())
    where = machine(available_threads(), ("numpy", *INSTALL))
    record = {**record, name: {"machine": where, "found": found}}
    write_json(RECORD, {name: record[name] for name in NAMES if name in record})
    say("\n\n".join(script(name).lines(found)))


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.complaints", description=__doc__)
    parser.add_argument("--run", nargs="?", const="all", choices=["all", *NAMES], metavar="NAME")
    options, failed = parser.parse_args(), []
    if options.run == "all":
        command = [sys.executable, "-m", "benchmarks.complaints", "--run"]
        failed = [name for name in NAMES if subprocess.run([*command, name]).returncode]
    elif options.run:
        run(options.run)
    text = written(PAGE.read_text(encoding="utf-8"), json.loads(RECORD.read_text()))
    with replacing(PAGE) as file:
        file.write(text.encode())
    if failed:
        sys.exit(f"not measured, left as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
