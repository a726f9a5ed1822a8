"""Makes the benchmark's models: `python -m bench.zoo [--folder FOLDER] [NAME ...]`.

A model that is there already is left alone; INDEX.txt in the folder lists those that are ready.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from bench.catalog import DEFAULT_FOLDER, MODELS, ZooModel, select


def ensure(model: ZooModel, folder: Path) -> Path:
    """The path of the model's ONNX file, which is made where it is missing."""
    path = model.path(folder)
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".onnx.tmp")
    if model.family == "digits":
        from bench.digits_models import export
    else:
        from bench.torch_models import export
    export(model, unfinished)
    unfinished.rename(path)
    write_index(folder)
    return path


def write_index(folder: Path) -> None:
    paths = dict.fromkeys(model.path(folder) for model in MODELS)
    ready = [path for path in paths if path.exists()]
    lines = [f"{path.name}\t{path.stat().st_size} bytes\t{path.resolve()}\n" for path in ready]
    (folder / "INDEX.txt").write_text("".join(lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models to make (all of them)")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args()
    failed = 0
    for model in select(options.names):
        start = time.perf_counter()
        try:
            path = ensure(model, options.folder)
        except Exception:
            traceback.print_exc()
            print(f"{model.name}: not made, see above", flush=True)
            failed += 1
        else:
            print(f"{model.name}: {path} ({time.perf_counter() - start:.1f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
