"""Exports are a step of their own, and only where they are asked for."""

from pathlib import Path
from typing import Any

import pytest
from zenml.models import PipelineRunResponse

from tests.end_to_end.conftest import Workplace, loaded, ran

ASKED: dict[str, dict[str, Any]] = {"exports": {"quantized": "nf4", "gguf": "q8_0", "max_prompts": 2}}


def test_an_export_runs_alone_after_what_is_there(first_run: PipelineRunResponse, workplace: Workplace) -> None:
    assert "export" not in first_run.steps
    run = workplace.run(**ASKED)
    assert ran(run) == {"resolve", "export"}
    outputs = {name: found[0] for name, found in run.steps["export"].outputs.items()}
    folder: Path = outputs["exported_model"].load().path
    assert {path.relative_to(folder).as_posix() for path in folder.iterdir()} == {
        "gguf",
        "quantized",
        "provenance.json",
    }
    assert [copy.name for copy in outputs["export_report"].load().copies] == ["bitsandbytes nf4", "GGUF q8_0"]
    size = next(folder.glob("gguf/*.gguf")).stat().st_size
    assert outputs["export_report"].run_metadata["GGUF_q8_0_bytes"] == size
    assert ran(workplace.run(**ASKED)) == {"resolve"}


def test_the_dry_run_of_a_push_says_so_and_ends_where_the_summary_says(
    first_run: PipelineRunResponse, workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workplace.run(exports={"hub": {"repository": "owner/name"}})
    assert ran(run) == {"resolve", "export"}
    report = loaded(run, "export_report")
    assert (report.copies, report.push.pushed) == ([], False)
    assert "model.safetensors" in report.push.files
    said = capsys.readouterr().out
    assert "exported model" in said
    assert "export report" in said
