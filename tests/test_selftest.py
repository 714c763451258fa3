"""Every module can be asked to test itself, by name and by path."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from lichen import selftest

SOURCES = Path(selftest.__file__).parent
MODULES = sorted(path for path in SOURCES.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


def names(path: Path) -> str:
    return path.relative_to(SOURCES).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_the_module_ends_with_its_self_test(path: Path) -> None:
    last = ast.parse(path.read_text(encoding="utf-8")).body[-1]
    assert isinstance(last, ast.If) and ast.unparse(last.test) == "__name__ == '__main__'"
    text = ast.unparse(last)
    assert "main(__file__)" in text or "self_test(__file__)" in text or "run_module(run, __file__)" in text


@pytest.mark.parametrize("path", MODULES, ids=names)
def test_the_module_opens_with_its_design_and_has_an_example(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module opens with its design in a few lines"
    assert ">>> " in text, "a module shows at least one example"


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert not {path.stem for path in MODULES} & set(sys.stdlib_module_names)


@pytest.mark.parametrize("how", ["name", "path"])
def test_running_a_module_tests_it(how: str) -> None:
    path = SOURCES / "config" / "errors.py"
    command = ["-m", "lichen.config.errors"] if how == "name" else [str(path)]
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.rstrip().endswith(selftest.PASSED)
    assert "passed" in result.stdout and "examples: 3 of 3 hold" in result.stdout


def test_a_failing_example_fails(tmp_path: Path) -> None:
    package = tmp_path / "src" / "lichen"
    package.mkdir(parents=True)
    for name in ("__init__.py", "selftest.py"):
        (package / name).write_bytes((SOURCES / name).read_bytes())
    (package / "wrong.py").write_text('"""A.\n\n>>> 1 + 1\n3\n"""\nif __name__ == "__main__":\n'
                                      "    from lichen.selftest import main\n\n    main(__file__)\n")  # fmt: skip
    environment = {"PYTHONPATH": str(tmp_path / "src")}
    result = subprocess.run(
        [sys.executable, str(package / "wrong.py")], capture_output=True, text=True, check=False, env=environment
    )
    assert result.returncode == 1 and selftest.FAILED in result.stdout
