"""What the walk through the dashboard calls a request; the walk itself where a store with a finished run is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.dashboard.pages import DETAILS, MODES, PictureError, element, picture_pages
from tests.dashboard.walk import SHOWN, Requests, WalkError, browser_page

STORE = "DASHBOARD_STORE"
HERE = "http://127.0.0.1:8391/assets/index.js"
ELSEWHERE = "https://logos.example/16.jpg"


def test_requests_to_this_machine_and_pages_without_a_host_pass() -> None:
    requests = Requests([HERE, HERE, "ws://127.0.0.1:8391/live", "data:image/png;base64,AA", "about:blank", "blob:x"])
    requests.check()
    assert requests.hosts() == {"127.0.0.1": 3}


@pytest.mark.parametrize("url", [ELSEWHERE, "wss://logos.example/live", "http://logos.example.127.0.0.1.example/"])
def test_one_request_to_another_host_is_an_error_that_names_it(url: str) -> None:
    with pytest.raises(WalkError, match=r"asked logos\.example"):
        Requests([HERE, url]).check()


def test_a_request_that_the_policy_refused_did_not_leave_but_its_repetition_did() -> None:
    Requests([HERE, ELSEWHERE], refused=[ELSEWHERE]).check()
    with pytest.raises(WalkError, match=r"logos\.example"):
        Requests([HERE, ELSEWHERE, ELSEWHERE], refused=[ELSEWHERE]).check()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_what_a_sandboxed_preview_asks_is_seen() -> None:
    pytest.importorskip("playwright", reason="pip install '.[pictures]'")
    requests = Requests()
    with browser_page(requests) as page, page.expect_event("requestfailed"):  # nobody listens there
        page.set_content("""<iframe sandbox="" srcdoc="<img src='http://localhost:9/logo.png'>"></iframe>""")
    with pytest.raises(WalkError, match="asked localhost"):
        requests.check()


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_page_is_pictured_in_both_modes(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="pip install '.[pictures]'")
    html = "<style>@media (prefers-color-scheme: dark) { body { background: #000 } }</style><h1>Some page</h1>"
    with browser_page(Requests()) as page:
        picture_pages(page, {"some_report": html}, tmp_path)
        with pytest.raises(PictureError, match="training curve"):
            picture_pages(page, {"training_report": html}, tmp_path)
    corners = []
    for mode in MODES:
        with Image.open(tmp_path / f"some_report-{mode}.webp") as picture:
            corners.append(picture.convert("RGB").getpixel((0, 0)))
    assert corners == [(255, 255, 255), (0, 0, 0)]
    assert element("some_report", "Some page") in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(
    STORE not in os.environ,
    reason=f"a minute of Chromium: {STORE}=FOLDER (a ZenML configuration folder with a finished run), or make pictures",
)
def test_every_artifact_is_shown_and_nobody_else_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("playwright", reason="pip install '.[pictures]'")
    command = [sys.executable, "-W", "ignore", "-m", "tests.dashboard.walk", "--output", str(tmp_path)]
    environment = os.environ | {"ZENML_CONFIG_PATH": os.environ[STORE]}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "requests to 127.0.0.1, none elsewhere" in done.stdout
    pages = {
        page
        for line in (tmp_path / "README.md").read_text(encoding="utf-8").splitlines()
        if (page := line.strip("`")) != line
    }
    names = {f"{name}-{mode}" for name in pages | {detail.name for detail in DETAILS} for mode in MODES}
    assert {"evaluation_report", "promotion_decision", "lineage"} < pages
    assert {path.stem for path in tmp_path.glob("*.webp")} == {"dag", f"dashboard_{SHOWN}"} | names
