"""What every report and record shares: plain values, saved as JSON, shown as one self-contained page."""

import importlib.util
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, PrivateAttr

from steps.page import Page, Section, Table, render


class Report(BaseModel):
    """Plain values that a step found out.

    The function ``draw`` of the ``page.py`` beside a report's module draws it; where there is none, a table does.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    _when_stored: Callable[[], object] | None = PrivateAttr(default=None)

    def when_stored(self, call: Callable[[], object]) -> None:
        """Have ``call`` made once the artifact store has the report: only then may what made it go."""
        self._when_stored = call

    def stored(self) -> None:
        """The artifact store has the report."""
        if self._when_stored is not None:
            self._when_stored()

    def metadata(self) -> dict[str, str | int | float | bool]:
        """The numbers that a person compares across runs; ZenML shows them beside the artifact."""
        return {}

    def decisive_json(self) -> str:
        """The values that count when a later step asks whether this report changed; override to leave out timings."""
        return self.model_dump_json()

    def page(self) -> Page:
        """The report as a page."""
        package = type(self).__module__.rpartition(".")[0]
        name = f"{package}.page"
        if not package or importlib.util.find_spec(name) is None:
            rows = [[field, str(value)] for field, value in self.model_dump(mode="json").items()]
            return Page(type(self).__name__, sections=[Section("Values", table=Table(["field", "value"], rows))])
        page: Page = importlib.import_module(name).draw(self)
        return page

    def html(self) -> str:
        """The page as one HTML document that loads nothing from anywhere."""
        return render(self.page())
