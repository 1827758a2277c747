"""The wheel: what is in it, and that it works in a folder that knows nothing of this checkout."""

import os
import shutil
import site
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("materializers", "pipelines", "steps")
SHARED = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.data/data/share/{PROJECT['name']}/configs/"


def pip(*arguments: str, cwd: Path) -> None:
    """Run pip without a network: what it needs is here."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-index", "--quiet"]
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("sources")
    for name in (*PACKAGES, "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", "dist", cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@dataclass(frozen=True)
class Installed:
    """The wheel in a virtual environment of its own, which borrows only the dependencies, and an empty folder."""

    environment: Path
    folder: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's commands in the empty folder."""
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "ZENML_CONFIG_PATH": str(self.folder / "zenml"),
        }
        return subprocess.run(
            [str(self.environment / "bin" / command), *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    pip("--python", str(environment / "bin" / "python"), "install", str(wheel), cwd=environment)
    return Installed(environment, tmp_path_factory.mktemp("empty"))


def sources() -> Iterator[str]:
    """What of the packages belongs into the wheel: all that git has, or would have."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def test_every_file_of_the_packages_is_in_the_wheel_and_no_other_package(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names - {name for name in names if name.startswith(SHARED)} == set(sources())


def test_the_configurations_come_along(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(SHARED)]
    configs = ROOT / "configs"
    assert sorted(names) == sorted(SHARED + path.relative_to(configs).as_posix() for path in configs.rglob("*.yaml"))


def test_help_works_in_an_empty_folder(installed: Installed) -> None:
    done = installed.run("qlora", "--help")
    assert done.returncode == 0, done.stderr
    assert "check" in done.stdout
    assert not list(installed.folder.iterdir()), "and leaves it empty"


def test_the_configurations_are_where_the_error_about_a_missing_one_says(installed: Installed) -> None:
    code = "import pipelines.document as one; print(one.shipped_configs()); one.read_document(one.Path('my.yaml'))"
    done = installed.run("python", "-c", code)
    shared = installed.environment / "share" / PROJECT["name"] / "configs"
    assert done.stdout.strip() == str(shared)
    assert f"my.yaml: no such file; those that come with the project are in {shared}; " in done.stderr
    assert (shared / "own-data.yaml").is_file()


@pytest.mark.slow
def test_a_configuration_of_ones_own_is_checked(installed: Installed) -> None:
    rows = installed.folder / "data" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text('{"instruction": "Return one.", "completion": "def one():\\n    return 1"}\n', encoding="utf-8")
    text = (installed.environment / "share" / PROJECT["name"] / "configs" / "own-data.yaml").read_text(encoding="utf-8")
    (installed.folder / "own.yaml").write_text(text.replace("hub: HuggingFaceTB", "folder: nowhere"), encoding="utf-8")
    lines = installed.run("qlora", "check", "-c", "own.yaml").stdout.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith(("1/", "4/", "5/"))] == [
        ["1/8", "config", "ok"],
        ["4/8", "data", "ok"],
        ["5/8", "base", "model"],
    ]
    assert "failed: parameters.base_model.folder: nowhere/SmolLM2-135M-Instruct" in "\n".join(lines)
