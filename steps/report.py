"""What every report and record shares: plain values, saved as JSON, shown as one self-contained page."""

from pydantic import BaseModel, ConfigDict

from steps.page import Page, Section, Table, render


class Report(BaseModel):
    """Plain values that a step found out. A subclass overrides :meth:`page` to draw more than a table."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def metadata(self) -> dict[str, str | int | float | bool]:
        """The numbers that a person compares across runs; ZenML shows them beside the artifact."""
        return {}

    def decisive_json(self) -> str:
        """The values that count when a later step asks whether this report changed; override to leave out timings."""
        return self.model_dump_json()

    def page(self) -> Page:
        """The report as a page; by default every field as one row of a table."""
        rows = [[name, str(value)] for name, value in self.model_dump(mode="json").items()]
        title = type(self).__name__
        return Page(title=title, sections=[Section("Values", table=Table(["field", "value"], rows))])

    def html(self) -> str:
        """The page as one HTML document that loads nothing from anywhere."""
        return render(self.page())
