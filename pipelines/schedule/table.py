"""Schedules as a table."""

from collections.abc import Sequence

from rich.table import Table

from pipelines.console import plain_console, text_of
from pipelines.schedule.plan import Listed

COLUMNS = ("name", "cron", "where", "stack", "next run", "last result", "configuration")
WIDTH = 140


def shown(schedules: Sequence[Listed]) -> str:
    """The table as plain text."""
    if not schedules:
        return 'no schedules yet; such as: qlora schedule -c configs/llama2-7b.yaml --cron "0 3 * * *"\n'
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="")
    for name in COLUMNS:
        table.add_column(name, overflow="fold")
    for one in sorted(schedules, key=lambda one: one.name):
        due = one.next_run if one.active else "paused"
        table.add_row(one.name, one.cron, one.where, one.stack, due, one.last_result, one.configuration)
    console = plain_console(WIDTH)
    console.print(table)
    return text_of(console)
