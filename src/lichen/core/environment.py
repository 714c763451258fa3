"""What surrounds the program: environment variables, versions, git state; and the record of it beside every run.

Apart from ``LICHEN__…`` settings (``config/base.py``), environment variables are read here only. Variables that must
be set before torch starts its threads are set by ``prepare_process``, called first by every verb that computes.

>>> world_size({"WORLD_SIZE": "4"}), world_size({})
(4, 1)
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_SECRET_WORDS = ("token", "secret", "password", "passwd", "api_key", "apikey", "credential")
_PACKAGES = ("lichen", "torch", "numpy", "tokenizers", "transformers", "accelerate", "safetensors", "pydantic")


def variable(name: str, variables: Mapping[str, str] | None = None) -> str | None:
    """An environment variable; None if it is unset or empty."""
    return (os.environ if variables is None else variables).get(name) or None


def _count(name: str, otherwise: int, variables: Mapping[str, str] | None) -> int:
    text = variable(name, variables)
    return int(text) if text is not None and text.isdigit() else otherwise


def rank(variables: Mapping[str, str] | None = None) -> int:
    """This process's number among all, as the launcher set it; 0 without one."""
    return _count("RANK", 0, variables)


def local_rank(variables: Mapping[str, str] | None = None) -> int:
    """This process's number on its machine."""
    return _count("LOCAL_RANK", 0, variables)


def world_size(variables: Mapping[str, str] | None = None) -> int:
    """How many processes train together."""
    return _count("WORLD_SIZE", 1, variables)


def is_launched(variables: Mapping[str, str] | None = None) -> bool:
    """Whether a launcher (``torchrun``, ``accelerate launch``) started this process as one of several."""
    return variable("WORLD_SIZE", variables) is not None and variable("MASTER_ADDR", variables) is not None


def prepare_process() -> None:
    """Set what libraries read at their start, unless the user set it.

    Waiting threads sleep on shared cores, CUDA memory grows in expandable segments.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def prepare_forking() -> None:
    """Keep the tokenizer to one thread, unless the user set it: a training forks loader workers, which threads do not survive."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def redact(text: str, variables: Mapping[str, str] | None = None) -> str:
    """``text`` with the values of secret-looking environment variables blotted out.

    >>> redact("key abcdefgh1", {"MY_TOKEN": "abcdefgh1"})
    'key ***'
    """
    for name, value in (os.environ if variables is None else variables).items():
        if len(value) >= 8 and any(word in name.lower() for word in _SECRET_WORDS):
            text = text.replace(value, "***")
    return text


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    """Versions of what decides the bits of a run."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path | None = None) -> dict[str, Any]:
    """Commit and whether the tree holds changes that are not committed, of the project around this package (or ``folder``)."""
    where = folder or Path(__file__).resolve().parent
    command = ["git", "-C", str(where)]
    try:
        commit = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
        status = subprocess.run(
            [*command, "status", "--porcelain"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}


def record(**more: Any) -> dict[str, Any]:
    """What ``environment.json`` holds: versions, machine, git state, command line, and ``more`` (device, seeds, sampling)."""
    import torch

    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "world_size": world_size(),
        "git": git_state(),
        "command": [redact(word) for word in sys.argv],
        **more,
    }


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
