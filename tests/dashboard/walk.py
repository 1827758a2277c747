"""A walk with headless Chromium through ZenML's dashboard on the newest finished run, with pictures for the README.

Run by ``make pictures``. Every step and every artifact must be in the drawn DAG; a click on each artifact must show,
as its visualisation, the very page that lies in the artifact store; and the browser may ask nobody but this machine.
The pages to read are pictured by themselves too (``pages.py``).
"""

import argparse
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from zenml.client import Client
from zenml.enums import StoreType

from pipelines.dashboard import skip_survey
from steps.errors import PipelineError
from tests.dashboard.pages import picture_pages, save

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page, ViewportSize

HOST = "127.0.0.1"
VIEW: "ViewportSize" = {"width": 1280, "height": 800}
"""The browser's window, in CSS pixels; the pictures have twice as many."""
ONE_PROCESS = "--disable-site-isolation-trials"
"""The dashboard's previews are sandboxed frames: in a process of their own Playwright would not see what they ask."""
PANEL_HEIGHT = 700
"""Height of the picture of an artifact: below it the dashboard's panel is empty."""
SHOWN = "evaluation_report"
"""The artifact whose page is pictured within the dashboard."""


class WalkError(PipelineError):
    """Something that the walk needs is missing, or the dashboard does not show what it must."""


@dataclass(frozen=True)
class Artifact:
    """An artifact of the run: its name, its data type and the HTML page that its materializer stored."""

    name: str
    kind: str
    page: str

    @property
    def is_page(self) -> bool:
        """Whether it is there to be read, rather than a list of rows or files."""
        return self.name in {"promotion_decision", "lineage"} or self.name.endswith("_report")


@dataclass(frozen=True)
class Run:
    """What the dashboard must show of a run."""

    id: str
    steps: list[str]
    artifacts: list[Artifact]


@dataclass
class Requests:
    """Every address that the browser asked, and those that its content security policy kept it from asking."""

    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def hosts(self) -> Counter[str]:
        """Requests that left the browser, by host; ``data:``, ``blob:`` and ``about:`` have none."""
        hosts = Counter(map(_host, self.asked)) - Counter(map(_host, self.refused))
        del hosts[""]
        return hosts

    def check(self) -> None:
        """Raise :class:`WalkError` if a host other than this machine was asked."""
        if elsewhere := sorted(set(self.hosts()) - {HOST}):
            raise WalkError(
                f"the dashboard asked {', '.join(elsewhere)}: start the walk by make pictures, whose "
                "ZENML_SERVER_SECURE_HEADERS_CSP allows 127.0.0.1 alone"
            )


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def newest_run() -> Run:
    """The newest completed run of the active ZenML store, which must be the local one.

    Raises:
        WalkError: If the client is connected to a server, there is no such run, or an artifact has no HTML page.
    """
    client = Client()
    if client.zen_store.type != StoreType.SQL:
        raise WalkError(f"ZenML's client is connected to {client.zen_store.url}: disconnect it by make stop-dashboard")
    runs = client.list_pipeline_runs(sort_by="desc:created", status="completed", pipeline_name="finetune", size=1).items
    if not runs:
        raise WalkError("the active ZenML store has no completed run of finetune: make one by make quickstart")
    run = client.get_pipeline_run(runs[0].id)
    artifacts = []
    for version in (version for step in run.steps.values() for outputs in step.outputs.values() for version in outputs):
        pages = [page.uri for page in version.visualizations or () if page.type == "html"]
        if not pages:
            raise WalkError(f"run {run.name}: artifact {version.name} has no HTML page: see its materializer")
        kind = version.data_type.attribute or ""
        artifacts.append(Artifact(version.name, kind, Path(pages[0]).read_text(encoding="utf-8")))
    return Run(str(run.id), list(run.steps), artifacts)


@contextmanager
def dashboard() -> Iterator[str]:
    """ZenML's own dashboard on a free port of this machine; gives its address and stops it at the end."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    skip_survey()
    zenml = str(Path(sys.executable).with_name("zenml"))
    login = [zenml, "login", "--local", "--ip-address", HOST, "--port", str(port)]
    try:
        done = subprocess.run(login, capture_output=True, text=True, check=False)
        if done.returncode:
            raise WalkError(f"the dashboard did not start: {' '.join(login)} said: {done.stderr.strip()[-300:]}")
        yield f"http://{HOST}:{port}"
    finally:
        subprocess.run([zenml, "logout", "--local"], capture_output=True, check=False)


@contextmanager
def browser_page(requests: Requests) -> Iterator["Page"]:
    """A page of headless Chromium, the system's or Playwright's own, that writes down whom it asks."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError:
        raise WalkError("playwright is not installed: pip install '.[pictures]', or make pictures") from None
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=[ONE_PROCESS])
        except Error as error:
            raise WalkError(
                "Chromium did not start: install the system's package chromium, or run playwright install chromium "
                f"({str(error).splitlines()[0]})"
            ) from error
        page = browser.new_page(viewport=VIEW, device_scale_factor=2, color_scheme="light")
        page.set_default_timeout(20_000)  # milliseconds: for a slow machine, not a measure of anything
        page.on("request", lambda request: requests.asked.append(request.url))
        page.on("websocket", lambda channel: requests.asked.append(channel.url))
        page.on(
            "requestfailed",
            lambda request: requests.refused.append(request.url) if request.failure == "csp" else None,
        )
        yield page
        browser.close()


def open_dag(page: "Page", address: str, run: Run) -> None:
    """Open the run's page with the DAG over its whole width, and find every step and artifact in it."""
    page.goto(f"{address}/projects/default/runs/{run.id}")
    page.get_by_role("button", name="Dismiss local-server notice").click()
    page.get_by_text("Run Insights").locator("xpath=preceding-sibling::button").click()
    page.get_by_role("button", name="Fit view").click()
    for name in [*run.steps, *(artifact.name for artifact in run.artifacts)]:
        node = page.locator(".react-flow__node").filter(has=page.get_by_text(name, exact=True))
        node.click(trial=True)  # drawn, in view and no longer moving
        if node.count() != 1:
            raise WalkError(f"the DAG has {node.count()} nodes {name}, not one")


def open_artifact(page: "Page", artifact: Artifact) -> None:
    """Click an artifact in the DAG and compare its visualisation with the stored page.

    Raises:
        WalkError: If the dashboard shows another page, or no heading of it is to be seen.
    """
    page.get_by_role("button", name="Fit view").click()
    page.locator(".react-flow__node").filter(has=page.get_by_text(artifact.name, exact=True)).click()
    panel = page.get_by_role("dialog")
    panel.get_by_text(artifact.name, exact=True).first.wait_for()
    panel.get_by_role("tab", name="Visualization").click()
    frame = panel.locator("iframe")
    preview = panel.get_by_role("button", name="Load Preview")  # the dashboard warns of pages before it shows them
    preview.or_(frame).first.wait_for()
    if preview.count():
        preview.click()
    if frame.get_attribute("srcdoc") != artifact.page:
        raise WalkError(f"the dashboard's page of {artifact.name} is not the one in the artifact store")
    panel.frame_locator("iframe").get_by_role("heading", level=1).wait_for()


def close_artifact(page: "Page") -> None:
    """Close the artifact's panel, which covers half of the DAG."""
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


def shoot(page: "Page", path: Path, height: int) -> None:
    """Write a picture of the window's upper part, ``height`` CSS pixels of it."""
    page.mouse.move(0, 0)  # nothing is marked because the pointer rests on it
    clip: FloatRect = {"x": 0, "y": 0, "width": VIEW["width"], "height": height}
    save(page.screenshot(animations="disabled", clip=clip), path)


def walk(output: Path) -> Counter[str]:
    """Walk from the DAG to every artifact's visualisation, write the pictures, and give the requests by host."""
    run, requests = newest_run(), Requests()
    output.mkdir(parents=True, exist_ok=True)
    with dashboard() as address, browser_page(requests) as page:
        open_dag(page, address, run)
        shoot(page, output / "dag.webp", VIEW["height"])
        for artifact in run.artifacts:
            open_artifact(page, artifact)
            if artifact.name == SHOWN:
                shoot(page, output / f"dashboard_{SHOWN}.webp", PANEL_HEIGHT)
            close_artifact(page)
        picture_pages(page, {one.name: one.page for one in run.artifacts if one.is_page}, output)
    requests.check()
    kinds = {artifact.kind for artifact in run.artifacts}
    print(f"{len(run.steps)} steps, {len(run.artifacts)} artifacts of {len(kinds)} types, each with its page")
    return requests.hosts()


def main() -> None:
    """Walk, then say whom the browser asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the pictures")
    for host, times in walk(parser.parse_args().output).items():
        print(f"{times} requests to {host}, none elsewhere")


if __name__ == "__main__":
    try:
        main()
    except PipelineError as error:
        sys.exit(f"error: {error}")
