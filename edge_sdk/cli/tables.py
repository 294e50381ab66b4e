"""Tables in the terminal: a name or a number is never cut; what does not fit is folded, or hidden and named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    Cell: TypeAlias = str | Text

_GAP = 2  # spaces between columns
_LEAST_TEXT = 16  # characters below which a folded text is hard to read
_PIPE_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and what may happen to it where the terminal is narrow."""

    title: str
    kind: Literal["name", "number", "text"] = "number"
    """``name``: never hidden, folded only where it is longer than most of a line; ``number``: never folded, may be
    hidden; ``text``: folded, may be hidden."""
    keep: bool = False  # never hidden
    right: bool = False  # a text is aligned to the right


def stdout_console() -> Console:
    """Give a console on stdout, as wide as the terminal; a file or a pipe has no edge to fold at."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    title: str = "",
    header: bool = True,
    console: Console | None = None,
) -> None:
    """Print rows of one cell per column.

    Columns that do not fit are hidden from the right; a line below names them and points to ``--json``.

    Parameters
    ----------
    console
        Where to print; :func:`stdout_console` by default.
    """
    from rich.table import Table
    from rich.text import Text

    console = console or stdout_console()
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    all_sizes = [_Size.of(column, [row[i] for row in cells], header=header) for i, column in enumerate(columns)]
    shown = _fitting(all_sizes, console.width)
    widths = _widths([all_sizes[i] for i in shown], console.width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=header, header_style="bold")
    for index, width in zip(shown, widths, strict=True):
        column = columns[index]
        justify: Literal["left", "right"] = "right" if column.right or column.kind == "number" else "left"
        table.add_column(Text(column.title), justify=justify, overflow="fold", width=width)
    for row in cells:
        table.add_row(*(row[i] for i in shown))
    if title:
        console.print(Text(title, "bold"))
    room = console.width
    console.width = max(room, _total(widths))  # a terminal that is too narrow for one name and number wraps the line
    console.print(table)
    console.width = room
    if hidden := [column.title for index, column in enumerate(columns) if index not in shown]:
        console.print(Text(f"hidden at this width: {', '.join(hidden)} (--json has all columns)", "dim"))


@dataclass(frozen=True, slots=True)
class _Size:
    """Characters that a column needs."""

    column: Column
    least: int  # a number or word is not broken
    full: int  # nothing is folded

    @classmethod
    def of(cls, column: Column, cells: Sequence[Text], *, header: bool) -> _Size:
        from rich.cells import cell_len

        title = column.title if header else ""
        lines = [line for cell in cells for line in cell.plain.splitlines()]
        full_cell = max(map(cell_len, lines), default=0)
        title_word = max(map(cell_len, title.split()), default=0)
        least = full_cell
        if column.kind == "text":
            word = max((cell_len(word) for line in lines for word in line.split()), default=0)
            least = min(full_cell, max(word, _LEAST_TEXT))
        return cls(column, max(least, title_word), max(full_cell, cell_len(title)))

    @property
    def droppable(self) -> bool:
        return self.column.kind != "name" and not self.column.keep


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * max(0, len(widths) - 1)


def _least(sizes: Sequence[_Size], room: int) -> list[int]:
    """Least width of each column in a line of ``room`` characters: names and words longer than most of it fold."""
    foldable = sum(size.column.kind != "number" for size in sizes)
    longest = max(2 * room // 3 // max(1, foldable), _LEAST_TEXT)
    return [size.least if size.column.kind == "number" else min(size.least, longest) for size in sizes]


def _fitting(sizes: Sequence[_Size], room: int) -> list[int]:
    """Indices of the columns that are shown."""
    shown = list(range(len(sizes)))
    while _total(_least([sizes[i] for i in shown], room)) > room:
        droppable = [i for i in shown if sizes[i].droppable]
        if not droppable:
            break
        shown.remove(droppable[-1])
    return shown


def _widths(sizes: Sequence[_Size], room: int) -> list[int]:
    """Width of each column: the rest of the line goes to whole words first, then to names, texts and titles."""
    widths = _least(sizes, room)
    left = max(0, room - _total(widths))
    wanted = [(index, size.least) for index, size in enumerate(sizes)]
    for kind in ("name", "text", "number"):
        wanted += [(index, size.full) for index, size in enumerate(sizes) if size.column.kind == kind]
    for index, width in wanted:
        more = min(left, max(0, width - widths[index]))
        widths[index] += more
        left -= more
    return widths
