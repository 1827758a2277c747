"""The merged directory behind an endpoint that speaks OpenAI's protocol: transformers' own server, asked for real."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

pytest.importorskip("openai", reason="transformers serve needs it; it is in the extra dev")

CHAT = [{"role": "user", "content": "Write a function add_8 that returns its argument plus 8."}]
TOKENS = 12


@pytest.fixture(scope="module")
def served(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run's merged model; it would end its answers at once, so its end token is one that it never says."""
    folder = tmp_path_factory.mktemp("served") / "merged"
    shutil.copytree(merged, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": 0}))
    return folder


@pytest.fixture(scope="module")
def address(served: Path) -> Iterator[str]:
    """A running server; it is stopped at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(served)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = served.parent / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
    try:
        wait(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    for _ in range(1200):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(url)  # noqa: S310 - an address of this machine
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server does not answer: {log.read_text()}")


def ask(address: str, chat: list[dict[str, str]], model: Path) -> dict[str, Any]:
    body = {"model": str(model), "messages": chat, "max_tokens": TOKENS, "temperature": 0}
    request = urllib.request.Request(  # noqa: S310 - an address of this machine
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:  # noqa: S310 - an address of this machine
        answer: dict[str, Any] = json.load(response)
    return answer


def test_a_chat_request_is_answered_as_the_model_answers(served: Path, address: str) -> None:
    answer = ask(address, CHAT, served)
    model: Any = AutoModelForCausalLM.from_pretrained(served)
    tokenizer: Any = AutoTokenizer.from_pretrained(served)
    ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.inference_mode():
        output = model.generate(**ids, max_new_tokens=TOKENS)[0, ids["input_ids"].shape[1] :]
    choice = answer["choices"][0]
    assert len(output) == TOKENS
    assert choice["message"] == {"role": "assistant", "content": tokenizer.decode(output, skip_special_tokens=True)}
    assert choice["message"]["content"].strip()
    assert answer["usage"]["prompt_tokens"] == ids["input_ids"].shape[1]
