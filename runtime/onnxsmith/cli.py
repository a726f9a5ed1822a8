"""The `onnxsmith` program: compile, run, inspect, profile, bench and verify models, and look after the cache.

Exit status: 0 after success, 1 where a model is refused, fails or gives other results, 2 for wrong usage.
"""

from __future__ import annotations

import sys

import typer

from onnxsmith.commands import bench, cache, compile, inspect, profile, run, verify
from onnxsmith.errors import ERRORS
from onnxsmith.version import __version__

# What a model, a file or a peer can do wrong; anything else is a fault of onnxsmith and shows its traceback.
_EXPECTED: tuple[type[Exception], ...] = (*ERRORS, ValueError, OSError, RuntimeError)

app = typer.Typer(
    name="onnxsmith",
    help="Compile ONNX models to native code and run them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(compile.compile)
app.command()(run.run)
app.command()(inspect.inspect)
app.command()(bench.bench)
app.command()(profile.profile)
app.command()(verify.verify)
app.add_typer(cache.app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit()


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Compile ONNX models to native code and run them."""


def main() -> None:
    """Run the program; what a model does wrong is one line on standard error and status 1."""
    try:
        app()
    except _EXPECTED as problem:
        print(f"onnxsmith: {problem}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
