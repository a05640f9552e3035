"""The rules of the house: layers, names, sizes, what the wheel carries, what the documents promise."""

import ast
import re
import subprocess
import sys
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest
from packaging.specifiers import SpecifierSet

import msr_adapter
from msr_adapter.config import schema
from msr_adapter.config.schema import StrictModel
from msr_adapter.files import BundledKind, bundled
from tests.support.end_to_end import write_small_pipeline
from tests.support.paths import ROOT

DATA_FOLDERS: tuple[BundledKind, ...] = ("templates", "pipelines", "eval")
SOURCES = sorted((ROOT / "msr_adapter").rglob("*.py"))
PACKAGES = sorted(path for path in SOURCES if path.name == "__init__.py")
PAGES = sorted((ROOT / "docs").glob("*.md"))


def named(path: Path) -> str:
    """Return a path as the names of tests show it."""
    return path.relative_to(ROOT).as_posix()


def test_imports_point_down() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 kept, 0 broken" in done.stdout


def test_no_module_imports_itself_round_a_corner() -> None:
    graph = grimp.build_graph("msr_adapter", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 50
    TopologicalSorter(imports).prepare()  # raises CycleError; imports inside functions count too


@pytest.mark.parametrize("folder", DATA_FOLDERS)
def test_the_data_folders_hold_no_code(folder: BundledKind) -> None:
    assert list(bundled(folder).iterdir())
    assert not list(bundled(folder).rglob("*.py"))


def test_metrics_import_numpy_and_nothing_of_ours_but_array_types_and_the_cpu_count() -> None:
    imported = set()
    for path in (ROOT / "msr_adapter" / "metrics").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name for name in names if not name.startswith("msr_adapter.metrics")}
    imported -= {"msr_adapter.arrays", "msr_adapter.system"}
    outside = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert outside == {"numpy"}


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 350
    assert [one.name for one in functions(path) if (one.end_lineno or 0) - one.lineno >= 60] == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name != "cli"], ids=named)
def test_no_function_has_more_than_six_parameters(path: Path) -> None:
    """A command of `msr` has as many as it has options; whatever else needs so many gets a dataclass."""
    assert [one.name for one in functions(path) if len(parameters(one)) > 6] == []


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_a_class_name_exists_once() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(named(path))
    assert len(places) > 100
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_every_class_of_the_config_ends_in_config() -> None:
    waiting, found = [StrictModel], set()
    while waiting:
        waiting += waiting.pop().__subclasses__()
        found |= {one for one in waiting if one.__module__.startswith("msr_adapter.")}
    assert len(found) > 30
    assert [one.__name__ for one in found if not one.__name__.endswith("Config")] == []
    assert {one.__name__ for one in found} <= set(schema.__all__)


@pytest.mark.parametrize("package", PACKAGES, ids=named)
def test_a_package_lists_its_files(package: Path) -> None:
    """The docstring of a package names each file and folder in it, with what is in there."""
    told = ast.get_docstring(ast.parse(package.read_text(encoding="utf-8"))) or ""
    files = {path.stem for path in package.parent.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in package.parent.glob("*/__init__.py")}
    assert "TODO" not in told
    assert sorted(name for name in files | folders if not re.search(rf"\b{name}\b", told)) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_heading_stands_twice_on_a_page(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    assert headings
    assert sorted({one for one in headings if headings.count(one) > 1}) == []
    assert [one for one in headings if len(set(parts := one.split(", "))) < len(parts)] == []


def test_constraints_are_exact_pins_of_everything_that_pyproject_pins() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
    pinned = re.findall(r'"([a-z]+==[^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert {"llamafactory==0.9.5", "torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"} == set(pinned)
    assert set(pinned) <= set(lines)


def test_the_constraints_with_vllm_are_those_without_but_for_what_vllm_moves() -> None:
    lines = [line for line in (ROOT / "constraints-vllm.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+]*", line)] == []
    assert lines == sorted(lines, key=str.lower)
    with_vllm, without = (
        dict(line.lower().replace("_", "-").split("==") for line in file.splitlines() if not line.startswith("#"))
        for file in ("\n".join(lines), (ROOT / "constraints.txt").read_text())
    )
    assert without.keys() <= with_vllm.keys()
    moved = {name for name in with_vllm.keys() & without if with_vllm[name] != without[name]}
    assert moved == {"cuda-bindings", "cuda-pathfinder", "fastapi", "llvmlite", "numba", "numpy"}
    [asked] = re.findall(r'(?m)^vllm = \["vllm(.+?)"\]$', (ROOT / "pyproject.toml").read_text())
    assert SpecifierSet(asked).contains(with_vllm["vllm"])


def test_the_changelog_knows_this_version() -> None:
    assert f"\n## {msr_adapter.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_file_that_the_readme_lists_exists() -> None:
    tree = re.search(r"```\n(msr_adapter/.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert tree is not None
    folder, listed = "", []
    for line in tree[1].splitlines():
        name = line.split()[0]
        listed.append(name if not line.startswith(" ") else folder + name)
        folder = name if not line.startswith(" ") else folder
    assert len(listed) > 5
    assert [name for name in listed if not (ROOT / name).exists()] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the installed hatchling."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(build, capture_output=True, check=True)
    [path] = out.glob("*.whl")
    return path


def test_the_wheel_carries_the_package_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"msr_adapter-{msr_adapter.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"msr_adapter", info}
    assert {f"{info}/licenses/LICENSE", "msr_adapter/py.typed"} <= set(names)
    for folder in DATA_FOLDERS:
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files
        assert {f"msr_adapter/{path.relative_to(ROOT).as_posix()}" for path in files} <= set(names)
    assert {f"msr_adapter/constraints/{name}" for name in ("constraints.txt", "constraints-vllm.txt")} <= set(names)
    package = [path for path in (ROOT / "msr_adapter").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in package} <= set(names)
    assert not [name for name in names if name.endswith(".pyc")]


def msr_from(wheel: Path, folder: Path, *arguments: str) -> str:
    """Unpack the wheel outside the checkout, run ``msr`` from it in an empty folder, return what it printed."""
    site, empty = folder / "site", folder / "empty"
    empty.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = "import sys, msr_adapter; sys.argv[0] = 'msr'; assert msr_adapter.__file__.startswith(sys.argv.pop(1))"
    code += "; from msr_adapter.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), *arguments], cwd=empty, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(site), "PATH": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_lists_its_pipelines_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    shown = msr_from(wheel, tmp_path, "ls")
    for folder in DATA_FOLDERS:
        for path in (ROOT / folder).glob("*.yaml"):
            assert f"  {path.stem} " in shown


def test_the_wheel_prints_the_versions_that_it_was_tested_with(wheel: Path, tmp_path: Path) -> None:
    assert msr_from(wheel, tmp_path, "constraints") == (ROOT / "constraints.txt").read_text()


def test_the_wheel_runs_a_whole_pipeline_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    pipeline = write_small_pipeline(tmp_path)
    assert "report: " in msr_from(wheel, tmp_path, "run", str(pipeline))
    assert (tmp_path / "empty" / "runs" / "small" / "evaluate" / "report.html").is_file()
