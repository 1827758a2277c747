"""Schedules as a table."""

from collections.abc import Sequence

from pipelines.console import plain_table, printed
from pipelines.schedule.plan import Listed

COLUMNS = ("name", "cron", "where", "stack", "next run", "last result", "configuration")
WIDTH = 140


def shown(schedules: Sequence[Listed]) -> str:
    """The table as plain text."""
    if not schedules:
        return 'no schedules yet; such as: qlora schedule -c configs/llama2-7b.yaml --cron "0 3 * * *"\n'
    table = plain_table(COLUMNS, gap=1)
    for one in sorted(schedules, key=lambda one: one.name):
        due = one.next_run if one.active else "paused"
        table.add_row(one.name, one.cron, one.where, one.stack, due, one.last_result, one.configuration)
    return printed(table, WIDTH)
