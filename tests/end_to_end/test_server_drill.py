"""A ZenML server that is killed between two steps and started again."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.end_to_end.conftest import ROOT, Workplace
from tests.tiny import write_model, write_rows


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """A server on this machine, as ``zenml login --local`` starts one."""
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(folder),
        "ZENML_LOCAL_STORES_PATH": str(folder / "local_stores"),
        "ZENML_SERVER": "true",
        "ZENML_SERVER_ALLOW_LOCAL_FILE_ACCESS": "true",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
    }
    command = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--port", str(port)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.slow
def test_the_server_restarts_between_two_steps(tmp_path: Path) -> None:
    """ZenML's client asks for half a minute; a run that gave up says so in a line, and the next one goes on."""
    folders = [tmp_path / name for name in ("server", "client")]
    for folder in folders:
        folder.mkdir()
    write_model(tmp_path / "base")
    config = Workplace(tmp_path).config()
    write_rows(tmp_path / "rows.jsonl", 120)
    port = free_port()
    environment = {
        **os.environ,
        "ZENML_CONFIG_PATH": str(folders[1]),
        "ZENML_STORE_URL": f"http://127.0.0.1:{port}",
        "ZENML_STORE_TYPE": "rest",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "ZENML_LOGGING_COLORS_DISABLED": "true",
    }
    servers = [serve(folders[0], port)]

    def run(*server: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "tests.end_to_end.server_killed", str(config), *server]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    try:
        while not answers(port):
            assert servers[0].poll() is None
            time.sleep(0.2)
        first = run(str(servers[0].pid))
        servers[0].wait()
        servers.append(serve(folders[0], port))
        said, _ = first.communicate()
        assert "Traceback" not in said
        assert first.returncode == 0 or said.splitlines()[-1].startswith("error: the ZenML server does not answer")
        while not answers(port):
            time.sleep(0.2)
        again = run()
        said, _ = again.communicate()
        assert again.returncode == 0, said
        for step in ("ingest", "validate", "split"):
            assert f"Using cached version of step `{step}`" in said
        assert servers[1].poll() is None, "format came from the cache, or the server was killed"
    finally:
        for server in servers:
            server.kill()
            server.wait()
