"""docs/configuration.md is what the parameter models say, and they say something about every key."""

from pathlib import Path

from pipelines.finetune import finetune
from pipelines.reference import PAGE, reference
from steps.resolve.params import Source
from steps.validate.params import ValidationParameters
from tests.pipelines.test_every_field_is_read import all_models

ROOT = Path(__file__).resolve().parents[2]


def cells(page: str) -> list[list[str]]:
    """The cells of each row that is about a key."""
    return [
        line.removeprefix("| ").removesuffix(" |").split(" | ") for line in page.splitlines() if line.startswith("| `")
    ]


def test_the_page_is_current() -> None:
    assert (ROOT / PAGE).read_text(encoding="utf-8") == reference(), "make docs writes it again"


def test_sections_are_the_pipelines_arguments_in_order() -> None:
    page = reference()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(finetune.parameters)


def test_every_key_has_a_type_a_default_and_a_description() -> None:
    for row in cells(reference()):
        key, kind, default, about = row
        assert kind, key
        assert default or kind == "mapping", key
        assert about.strip(), f"{key} has no description: give its Field one"


def test_every_field_of_every_model_is_there() -> None:
    told = {row[0].strip("`").rpartition(".")[2] for row in cells(reference())}
    for model in all_models():
        assert model.model_fields.keys() <= told, model.__name__


def test_rows_say_what_the_models_say() -> None:
    rows = {row[0].strip("`"): row[1:] for row in cells(reference())}
    revision = Source.model_fields["revision"]
    assert rows["data.sources[].revision"] == ["text", f"`{revision.default}`", revision.description]
    assert rows["data.sources"][:2] == ["list of mappings", "**required**"]
    limit = ValidationParameters.model_fields["instruction_length"].default.max
    assert rows["validation.instruction_length.max"][1] == f"`{limit}`", (
        "the default that stands there, not the class's"
    )
    assert rows["splits.near_duplicate_threshold"][0] == "number, above 0.3, at most 1"
    assert rows["prompt.loss_on"][:2] == ["`completion` or `all`", "`completion`"]
    assert rows["training.betas"][0] == "list of 2 numbers"
    assert rows["validation.no_stub"][2].endswith("(keys as of `validation.completion_parses`)")
