"""Where a training's figures go by the kind of experiment tracker; whole runs are in tests/end_to_end."""

from pathlib import Path

import pytest

from steps.train.tracking import curves, nowhere


class Notebook:
    """A tracker that takes figures."""

    def __init__(self) -> None:
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.lines.append((step, metrics))


def test_a_tracker_that_takes_figures_gets_them() -> None:
    notebook = Notebook()
    curves(notebook, "notebook")(3, {"loss": 1.5})
    assert notebook.lines == [(3, {"loss": 1.5})]


def test_a_tracker_that_takes_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert curves(object(), "vertex") is nowhere
    assert "no curves for the experiment tracker, vertex has no log_metrics" in capsys.readouterr().out


def test_mlflow_gets_curves_by_optimiser_step(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra 'tracking'")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    with mlflow.start_run() as run:
        log = curves(object(), "mlflow")
        for step in (1, 2, 4):
            log(step, {"loss": 1 / step})
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 1.0), (2, 0.5), (4, 0.25)]
