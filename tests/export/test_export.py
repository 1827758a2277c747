"""Each copy loads with transformers alone, and is the merged model within its bound."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from steps.errors import ModelError
from steps.export.export import require_bound
from steps.export.params import ExportParameters
from steps.export.report import ExportReport
from tests.export.conftest import Export


@pytest.mark.parametrize("kind", ["nf4", "fp4", "int8"])
def test_a_quantised_copy_loads_and_is_near(export: Export, merged: Path, kind: str) -> None:
    output, report = export(quantized=kind, max_prompts=2)
    (copy,) = report.copies
    assert (copy.name, copy.rows, copy.files) == (f"bitsandbytes {kind}", 2, ["quantized/"])
    assert 0 < abs(copy.exported_loss - copy.merged_loss) <= copy.max_loss_difference_bound
    assert copy.max_logit_difference > 0
    folder = output / "quantized"
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.quantization_config.quant_method == "bitsandbytes"
    original = AutoModelForCausalLM.from_pretrained(merged)
    assert torch.equal(model.model.embed_tokens.weight.float(), original.model.embed_tokens.weight.float())
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert copy.bytes < report.merged_bytes


def test_no_copy_names_a_folder_of_this_machine_but_the_base_model_s(export: Export, merged: Path) -> None:
    output, _ = export(quantized="nf4", gguf="f16", max_prompts=1)
    base = json.loads((merged / "provenance.json").read_text())["base_model"]["folder"]
    files = list(output.rglob("*.json"))
    assert "provenance.json" in {path.name for path in files}
    for path in files:
        assert str(output.parent) not in path.read_text().replace(base, ""), path


@pytest.mark.parametrize(
    ("exports", "name"),
    [
        ({"quantized": "nf4", "max_quantized_loss_difference": 1e-9}, "max_quantized_loss_difference"),
        ({"gguf": "q8_0", "max_gguf_loss_difference": 1e-12}, "max_gguf_loss_difference"),
    ],
)
def test_a_copy_beyond_its_bound_is_refused(export: Export, exports: dict[str, object], name: str) -> None:
    hub = {"repository": "owner/name", "dry_run": False}  # there is no hub here: a push would be another error
    with pytest.raises(ModelError, match=rf"parameters\.exports\.{name}: completion loss .* further apart than 1e-"):
        export(**exports, hub=hub)


def test_bounds_count_in_both_directions(export: Export) -> None:
    """A copy that is much better than the merged model is not that model either."""
    _, report = export(gguf="q8_0", max_prompts=1)
    copy = report.copies[0]
    better = copy.model_copy(update={"exported_loss": copy.merged_loss - 1.0})
    with pytest.raises(ModelError, match="further apart"):
        require_bound(better)


def test_a_report_survives_its_json_and_draws_its_page(export: Export) -> None:
    _, report = export(quantized="nf4", gguf="q8_0", hub={"repository": "owner/name"}, max_prompts=2)
    again = ExportReport.model_validate_json(report.model_dump_json())
    assert again == report
    page = again.html()
    for text in ("bitsandbytes nf4", "GGUF q8_0", "owner/name", "dry run", "Files that would be pushed"):
        assert text in page, text
    assert set(report.metadata()) == {
        "bitsandbytes_nf4_bytes",
        "bitsandbytes_nf4_loss_difference",
        "GGUF_q8_0_bytes",
        "GGUF_q8_0_loss_difference",
        "pushed",
    }


def test_nothing_is_asked_for_by_default() -> None:
    assert not ExportParameters().any
    assert ExportParameters(gguf="f16").any
    for repository in ("name", "owner/name/more", "https://huggingface.co/owner/name", "owner/na me"):
        with pytest.raises(ValidationError, match="repository"):
            ExportParameters.model_validate({"hub": {"repository": repository}})
