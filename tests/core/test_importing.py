"""Functions named in recipes."""

from pathlib import Path

import pytest

from lichen.config.errors import UsageError
from lichen.core.importing import find_function


def test_a_function_of_ones_own_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_functions_x.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_function("my_functions_x:twice", "s")(3) == 6
    with pytest.raises(UsageError, match=r"s = my_functions_x:twic: .* \(nearest: twice; available: twice\)"):
        find_function("my_functions_x:twic", "s")


def test_a_missing_module_names_the_remedy() -> None:
    with pytest.raises(UsageError, match=r"s = nosuch_x:f: No module named 'nosuch_x'; .* PYTHONPATH"):
        find_function("nosuch_x:f", "s")
