"""Collect finished runs, and write ``docs/paper.md``.

python -m benchmarks.paper collect --commit HASH --machine TEXT --date DATE --data-dir DIR RUN ...
python -m benchmarks.paper write
"""

import argparse
import sys
from pathlib import Path

from benchmarks.paper.document import document, draw
from benchmarks.paper.record import collect, read, write
from igc_ref.errors import IGCError
from igc_ref.files import replacing

ROOT = Path(__file__).parents[2]
RECORD, DOCS = ROOT / "benchmarks" / "results" / "paper.json", ROOT / "docs"


def main():
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    add = commands.add_parser("collect", help="add finished runs to the record")
    add.add_argument("folders", nargs="+", type=Path, help="of runs, or above them")
    add.add_argument("--commit", required=True, help="of the code that ran")
    add.add_argument("--machine", required=True, help="that ran, such as 'NVIDIA H100, cupy'")
    add.add_argument("--date", required=True, help="of the run, such as 2026-01-31")
    add.add_argument("--data-dir", required=True, help="folder of the images")
    commands.add_parser("write", help="write the document from the record")
    options = parser.parse_args()
    if options.command == "collect":
        place = {name: getattr(options, name) for name in ("commit", "machine", "date")}
        record = collect(
            options.folders, place, read(RECORD), options.data_dir, lambda part: write(RECORD, part)
        )
        write(RECORD, record)
        print(f"{len(record['runs'])} runs, {len(record['compress'])} compressions recorded")
    else:
        record = read(RECORD)
        draw(record, DOCS)
        with replacing(DOCS / "paper.md") as file:
            file.write(document(record).encode())
        print("written: docs/paper.md and its figures")


if __name__ == "__main__":
    try:
        main()
    except IGCError as error:
        sys.exit(f"error: {error}")
