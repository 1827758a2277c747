"""Every command that the README and the pages below docs/ name can be typed, and is run by a test or named here."""

from pathlib import Path

import pytest

from tests.docs.documented import INLINE, MAKEFILE, ROOT, TARGETS, Command, commands, fault

RUN_BY = {
    "qlora check": ("pipelines/test_check.py", '["check", "-c"'),
    "qlora compare": ("end_to_end/test_commands.py", 'qlora("compare"'),
    "qlora generate": ("end_to_end/test_commands.py", 'qlora("generate"'),
    "qlora lineage": ("end_to_end/test_lineage_of_runs.py", 'qlora("lineage"'),
    "qlora preview": ("pipelines/test_preview.py", '["preview", "-c"'),
    "qlora promote": ("end_to_end/test_promotion_of_runs.py", 'qlora("promote"'),
    "qlora prune": ("end_to_end/test_lineage_of_runs.py", 'qlora("prune"'),
    "qlora rollback": ("end_to_end/test_promotion_of_runs.py", 'qlora("rollback"'),
    "qlora runs": ("end_to_end/test_lineage_of_runs.py", 'qlora("runs"'),
    "qlora schedule": ("schedule/test_schedule_commands.py", '"schedule"'),
    "qlora schedule list": ("schedule/test_schedule_commands.py", '"list"'),
    "qlora schedule pause": ("schedule/test_schedule_commands.py", '"pause"'),
    "qlora schedule run-now": ("schedule/test_schedule_commands.py", '"run-now"'),
    "zenml pipeline run": ("end_to_end/test_zenml_cli.py", 'zenml("pipeline", "run"'),
    "zenml stack import": ("pipelines/test_manifests.py", "import_stack"),
    "python docker/healthcheck.py": ("docker/test_image.py", "healthy: ZenML"),
    "python -m pipelines.schedule.run": ("schedule/test_run.py", "run.main("),
    "python -m steps.train.distributed.join": ("train/test_several_processes.py", '"steps.train.distributed.join"]'),
    "python -m tests.end_to_end.cache_table": ("end_to_end/test_cache_table.py", "cache_table"),
    "python -m pytest": ("train/test_plan_memory.py", "def test_"),
    "transformers serve": ("merge/test_served.py", '"serve"'),
    "curl": ("merge/test_served.py", "/v1/chat/completions"),
    "pip wheel": ("end_to_end/test_wheel.py", '"wheel", "."'),
    "make docs": ("pipelines/test_reference.py", "reference()"),
}
"""Command -> the test that runs it, and a text of that test which shows it."""

NOT_RUN = {
    "make quickstart": "downloads and trains for minutes; the same pipeline runs on a tiny model",
    "make install": "downloads; .ci/run starts with it",
    "make test": "it would run itself; .ci/run runs it",
    "make test-slow": "takes minutes",
    "make test-gpu": "needs a GPU",
    "make lint": ".ci/run runs it",
    "make types": ".ci/run runs it",
    "make dashboard": "starts a server that stays",
    "make pictures": "needs a browser and a quickstart's run",
    "make bench": "takes minutes",
    "make bench-gpu": "needs a GPU",
    "make image": "needs a builder of images, and downloads; docker/test_image.py reads the Dockerfile",
    "make image-cpu": "the same",
    "docker run": "needs the image, and a GPU",
    "kubectl apply": "needs a cluster",
    "kubectl --namespace": "needs a cluster",
    "pip install": "downloads; the extras' names are checked",
    "source .venv/bin/activate": "the file is venv's own",
    "zenml login": "needs a server",
    "zenml secret create": "ZenML's own; tests/s3_store.py does the same through its client",
    "zenml artifact-store register": "the same",
    "zenml stack register": "the same",
    "zenml stack update": "the same",
    "zenml integration install": "downloads",
    "python -I": "Python's own",
    "python -m tests.benchmarks.cpu_training": "takes minutes",
    "python -m tests.benchmarks.generation": "takes minutes",
    "python -m tests.benchmarks.gpu_invariance": "needs a GPU",
    "python -m tests.benchmarks.gpu_out_of_memory": "needs a GPU",
    "python -m tests.benchmarks.gpu_training": "needs a GPU",
    "python -m tests.benchmarks.merge_room": "takes minutes",
    "python -m tests.benchmarks.sandbox": "takes minutes",
    "python -m tests.benchmarks.several_gpus": "needs several GPUs",
}
"""Command -> why no test runs it as it stands; it is still parsed, and its files looked up."""

FOUND = list(commands())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder: the checkout, and a configuration of their own."""
    for name in ("configs", "docker", "docs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "my.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_commands_are_found() -> None:
    names = {command.name for command in FOUND}
    assert len(FOUND) > 60
    assert {"qlora check", "zenml pipeline run", "make quickstart", "transformers serve", "curl"} <= names


def test_each_command_can_be_typed(folder: Path) -> None:
    assert [f"{command}: {wrong}" for command in FOUND if (wrong := fault(command))] == []


def test_each_command_is_run_by_a_test_or_has_a_reason() -> None:
    names = {command.name for command in FOUND}
    assert sorted(names - RUN_BY.keys() - NOT_RUN.keys()) == []
    assert sorted((RUN_BY.keys() | NOT_RUN.keys()) - names) == [], "no page names these any more"
    assert not RUN_BY.keys() & NOT_RUN.keys()


@pytest.mark.parametrize("name", RUN_BY)
def test_the_test_that_runs_it_is_there(name: str) -> None:
    path, evidence = RUN_BY[name]
    assert evidence in (ROOT / "tests" / path).read_text(encoding="utf-8")


def test_every_target_is_listed_by_make_help_and_phony() -> None:
    phony = next(line for line in MAKEFILE.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert sorted(TARGETS) == sorted(phony)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("qlora chek -c my.yaml", "no command chek"),
        ("qlora check --config my.yaml --gpus h100", "--gpus"),
        ("qlora check", "Missing option '-c' / '--config'."),
        ("zenml pipeline run pipelines.finetune.finetune -c configs/gone.yaml", "configs/gone.yaml"),
        ("make quikstart", "no target quikstart"),
        ("make image IMG=x", "no variable IMG=x"),
        ("pip install .[sreve]", "no extra sreve"),
        ("python -m pipelines.gone", "no -m pipelines.gone"),
        ("python -m tests.benchmarks.merge_room --lairs 6", "has no --lairs"),
        ("kubectl apply -f docker/kubernetes/gone.yaml", "no file docker/kubernetes/gone.yaml"),
    ],
)
def test_a_command_that_does_not_exist_is_caught(folder: Path, text: str, wrong: str) -> None:
    found = fault(Command("page.md", 1, tuple(text.split()), whole=True))
    assert found is not None
    assert wrong in found


def test_a_command_within_a_sentence_may_leave_things_out_but_not_invent_options() -> None:
    def within(text: str) -> str | None:
        match = INLINE.fullmatch(f"`{text}`")
        assert match is not None
        return fault(Command("page.md", 1, tuple(match[1].split()), whole=False))

    assert within("qlora check --gpu ... --memory ...") is None
    assert within("qlora check --card ...") == "no option --card"
