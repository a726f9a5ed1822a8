"""`onnxsmith cache`: look at the cache on disk and make room."""

from __future__ import annotations

from typing import Annotated

import typer

from onnxsmith.cache import Cache, Entry, open_cache
from onnxsmith.commands import common
from onnxsmith.options import settings

app = typer.Typer(help="Show, prune or clear the cache of compiled programs.", no_args_is_help=True)


@app.command()
def info(format: common.FormatOption = common.Format.table) -> None:
    """Show where the cache is and what is in it."""
    cache = _opened()
    entries = cache.entries()
    rows = [_row(store.name, [entry for entry in entries if entry.store == store.name]) for store in cache.stores]
    rows.append(_row("all", entries))
    common.show(format, f"{cache.directory} (at most {cache.bound} bytes)", rows)


@app.command()
def prune(
    bound: Annotated[int | None, typer.Option("--bytes", min=0, help="Keep at most this many bytes.")] = None,
    format: common.FormatOption = common.Format.table,
) -> None:
    """Remove what was used longest ago, until the cache is within its bound."""
    common.show(format, "removed", [_row("all", _opened().prune(bound))])


@app.command()
def clear(format: common.FormatOption = common.Format.table) -> None:
    """Remove every entry."""
    common.show(format, "removed", [_row("all", _opened().clear())])


def _opened() -> Cache:
    chosen = settings()
    cache = open_cache(chosen.cache_dir, chosen.cache_bytes)
    if cache is None:
        raise common.usage_error("there is no cache: it is off, or its folder cannot be used")
    return cache


def _row(store: str, entries: list[Entry]) -> dict[str, object]:
    return {"store": store, "entries": len(entries), "bytes": sum(entry.size for entry in entries)}
