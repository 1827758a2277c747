"""A shared evaluation as a folder, from which its processes read what they are asked, and into which they write what
they made of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Self

from datasets import Dataset
from pydantic import BaseModel, TypeAdapter

from steps.evaluate.ask import Questions
from steps.evaluate.distributed.deal import Rows, Share
from steps.evaluate.examine import Examination, Models, Outcome
from steps.evaluate.kept import KeptAnswers
from steps.evaluate.params import EvaluationParameters
from steps.evaluate.sandbox.verdict import Verdict

ARGUMENTS = "arguments.json"
VALIDATION, REFERENCE, MEASURED, ANSWERED, PRODUCTION = "validation", "reference", "measured", "answered", "production"


class SharedEvaluation(BaseModel):
    """The arguments of ``examine`` but the rows, which lie beside it, and each process's share of them."""

    models: Models
    evaluation: EvaluationParameters
    kept: KeptAnswers | None
    names: list[str]  # of the sets
    references: list[list[Verdict | None] | None]  # of the sets
    shares: list[Share]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What :func:`write_task` wrote."""
        return cls.model_validate_json((folder / ARGUMENTS).read_text(encoding="utf-8"))

    def asked(self, folder: Path, number: int) -> Examination:
        """What a process is asked."""
        share = self.shares[number]

        def rows(name: str, own: list[int]) -> Dataset:
            return Dataset.load_from_disk(folder / name).select(own)

        def questions(place: int, own: Rows, kind: str = "") -> Questions:
            references = self.references[place]
            return Questions(
                name=self.names[place],
                measured=rows(f"{kind or place}-{MEASURED}", own.measured),
                answered=rows(f"{kind or place}-{ANSWERED}", own.answered),
                references=None if references is None else [references[row] for row in own.answered],
            )

        return Examination(
            questions=[questions(place, own) for place, own in enumerate(share.sets)],
            validation=rows(VALIDATION, share.validation) if share.validation else None,
            reference=rows(REFERENCE, share.reference) if share.reference else None,
            tasks=[self.evaluation.tasks[place] for place in share.tasks],
            again=questions(0, share.again) if share.again else None,
            production=questions(0, share.production, PRODUCTION) if share.production else None,
        )


def write_task(
    folder: Path,
    models: Models,
    asked: Examination,
    evaluation: EvaluationParameters,
    kept: KeptAnswers | None,
    shares: list[Share],
) -> None:
    """Write what all are asked; no set is empty, which datasets could not read."""
    tables = {VALIDATION: asked.validation, REFERENCE: asked.reference}
    sets = {str(place): one for place, one in enumerate(asked.questions)}
    for name, one in (sets | ({PRODUCTION: asked.production} if asked.production else {})).items():
        tables |= {f"{name}-{MEASURED}": one.measured, f"{name}-{ANSWERED}": one.answered}
    for name, rows in tables.items():
        if rows:
            rows.save_to_disk(folder / name)
    task = SharedEvaluation(
        models=models,
        evaluation=evaluation,
        kept=kept,
        names=[one.name for one in asked.questions],
        references=[one.references for one in asked.questions],
        shares=shares,
    )
    (folder / ARGUMENTS).write_text(task.model_dump_json(), encoding="utf-8")


def write_outcome(folder: Path, number: int, outcome: Outcome) -> None:
    """Leave what a process made of its share; Python's JSON keeps every number, infinite ones too."""
    _path(folder, number).write_text(json.dumps(asdict(outcome)), encoding="utf-8")


def read_outcome(folder: Path, number: int) -> Outcome:
    """What :func:`write_outcome` wrote."""
    return TypeAdapter(Outcome).validate_python(json.loads(_path(folder, number).read_text(encoding="utf-8")))


def _path(folder: Path, number: int) -> Path:
    return folder / f"outcome-{number}.json"
