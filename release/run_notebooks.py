"""Run notebooks and keep what they print and draw in them: ``python release/run_notebooks.py notebooks/*.ipynb``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

import nbformat
from nbclient import NotebookClient

LIMIT = 180  # seconds of a notebook

if __name__ == "__main__":
    for name in map(Path, sys.argv[1:]):
        begin = perf_counter()
        notebook = nbformat.read(name, as_version=4)
        settings = {"timeout": LIMIT, "kernel_name": "python3", "record_timing": False, "coalesce_streams": True}
        os.environ["OMP_NUM_THREADS"] = "1"
        NotebookClient(notebook, resources={"metadata": {"path": str(name.parent)}}, **settings).execute()
        notebook.metadata["language_info"] = {"name": "python"}  # without the version of whoever ran it
        for cell in notebook.cells:
            if cell.cell_type == "code":  # warnings of other packages name folders of this machine
                cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        seconds = perf_counter() - begin
        if seconds > LIMIT:
            sys.exit(f"{name}: {seconds:.0f} s, expected at most {LIMIT}")
        nbformat.write(notebook, name)
        print(f"{name}: {seconds:.0f} s")
