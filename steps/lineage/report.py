"""The lineage of one model: branches of named values, some of which can be checked."""

from collections.abc import Mapping

from pydantic import BaseModel

from steps.report import Report

DIRECTORY = "directory"
"""What an entry stands for whose files are the model's own."""


class Entry(BaseModel):
    """One value; ``stands_for`` is the artifact version's id, or ``directory``, where hashes can tell of a change."""

    name: str
    value: str
    stands_for: str = ""
    step: str = ""
    state: str = ""


class Branch(BaseModel):
    """Entries under one title."""

    title: str
    entries: list[Entry]


class Lineage(Report):
    """All that is known of where a model comes from; ``facts`` has one short line for each step of the picture."""

    name: str
    branches: list[Branch]
    facts: dict[str, str]

    def checked(self, states: Mapping[str, str]) -> "Lineage":
        """The lineage with what the hashes said, by what an entry stands for."""
        branches = [
            Branch(
                title=branch.title,
                entries=[
                    entry.model_copy(update={"state": states.get(entry.stands_for, "")}) for entry in branch.entries
                ],
            )
            for branch in self.branches
        ]
        return Lineage(name=self.name, branches=branches, facts=self.facts)

    def states_of_steps(self) -> dict[str, str]:
        """The worst that was found of each step's artifacts."""
        states: dict[str, str] = {}
        for entry in (entry for branch in self.branches for entry in branch.entries if entry.step and entry.state):
            if entry.state.startswith("changed") or entry.step not in states:
                states[entry.step] = entry.state
        return states
