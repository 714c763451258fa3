"""Every module tests itself: ``python -m lichen.core.batch``, or ``python`` with the file's path.

Shown are the module's docstring examples with what they print; then they are checked, and the mirrored test file
(``src/lichen/core/batch.py`` → ``tests/core/test_batch.py``) runs under pytest. In an installed package there are no tests, and
the examples alone are run. Nothing beyond the standard library is imported here until then.

>>> test_file(Path("/p/src/lichen/core/batch.py")).as_posix()
'/p/tests/core/test_batch.py'
"""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

PASSED = "=== 自测通过 · self-test passed ==="
FAILED = "=== 自测失败 · self-test failed ==="


def module_name(path: Path) -> str:
    """The dotted name of the module in the file at ``path``, which lies somewhere below a folder ``lichen``.

    >>> module_name(Path("/p/src/lichen/core/batch.py"))
    'lichen.core.batch'
    """
    parts = path.with_suffix("").parts
    start = len(parts) - 1 - parts[::-1].index("lichen")
    return ".".join(part for part in parts[start:] if part != "__init__")


def test_file(path: Path) -> Path:
    """Where the tests of the module at ``path`` would be."""
    parts = path.parts
    start = len(parts) - 1 - parts[::-1].index("lichen")
    root = Path(*parts[: max(start - 1, 0)])
    return root.joinpath("tests", *parts[start + 1 : -1], f"test_{path.name}")


test_file.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


def _run_examples(name: str) -> int:
    """Show and check the docstring examples of the module ``name``; how many failed."""
    module = importlib.import_module(name)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    shown, attempted, failed = 0, 0, 0
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        if not test.examples:
            continue
        for example in test.examples if shown < 8 else []:
            print(f">>> {example.source.rstrip()}\n{example.want.rstrip()}".rstrip())
            shown += 1
        result = doctest.DocTestRunner(optionflags=flags).run(test)
        attempted, failed = attempted + result.attempted, failed + result.failed
    print(f"examples: {attempted - failed} of {attempted} hold")
    return failed


def _run_tests(path: Path) -> int:
    """Run the mirrored test file, if there is one and pytest is installed; its exit status."""
    tests = test_file(path)
    if not tests.is_file() or importlib.util.find_spec("pytest") is None:
        return 0
    root = tests.parents[tests.parts[::-1].index("tests")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    return subprocess.run(command, cwd=root, check=False).returncode


def main(file: str) -> None:
    """Run the self-test of the module in ``file`` and exit: 0 if all holds, 1 if not."""
    path = Path(file).resolve()
    # ``python path/to/module.py`` puts the module's own folder first: its neighbours must not hide other packages.
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != path.parent]
    failed = _run_examples(module_name(path)) + _run_tests(path)
    print(FAILED if failed else PASSED)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(__file__)
