"""Tables for people: at most 80 columns, or 160 where everything was asked for; no figure and no name is cut off."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

#: A narrower terminal wraps lines rather than cutting figures off.
TABLE_COLUMNS, WIDE_COLUMNS = 80, 160


def table_console(wide: bool = False) -> Console:
    """Where tables are printed: wide enough for all columns, also into a pipe."""
    return Console(width=max(Console().width, WIDE_COLUMNS if wide else TABLE_COLUMNS))


def new_table(title: str, headings: Sequence[str], text: Collection[str] = ()) -> Table:
    """An empty table. Headings in ``text`` stand over text, which is wrapped; the others over numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.padding, table.pad_edge, table.show_edge = (0, 0, 0, 1), False, False
    for heading in headings:
        table.add_column(heading, justify="left" if heading in text else "right", overflow="fold", vertical="top")
    return table
