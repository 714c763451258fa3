"""What a disk may hold after the power went: only what was synced, and not even names that were not.

A process that is killed leaves its writes to the operating system, which finishes them; a power loss does not. This shim
notes what every ``fsync`` has put on the disk: the bytes of a file, the names in a folder. After each call that changes
the disk it makes two images of the worst that the power could leave:

    contents lost    all names as they are now, but files hold what was last synced, or nothing
    names lost       folders hold the names that were last synced, files what was last synced

and asks whether what was reported as saved is still there, whole.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crash_points import Scenario, begin_of, compare, in_child, record
from scenarios import surviving

from lichen.core.runs import Run

WATCHED = ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir")


class PowerLoss:
    """Watches ``folder``; calls ``look(image, where)`` with an image after each call that changes the disk."""

    def __init__(self, folder: Path, images: Path, look: Callable[[Path, str], None]):
        self.folder, self.images, self.look = folder, images, look
        self.events = self.looked = 0
        self._busy = False
        self._contents: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._folders: set[int] = set()
        self._held: list[int] = []
        for path in [folder, *folder.rglob("*")]:  # what is there at the beginning has been there for long
            descriptor = os.open(path, os.O_RDONLY)
            self._synced(descriptor)
            os.close(descriptor)
        for name in WATCHED:
            setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            if name == "fsync":
                self._synced(arguments[0])
            if not self._busy:
                self._busy = True
                self.events += 1
                self._photograph(f"{name} #{self.events}")
                self._busy = False
            return result

        return watched

    def _synced(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        self._held.append(os.dup(descriptor))  # so that its number is not given to another file
        if stat.S_ISDIR(status.st_mode):
            self._folders.add(status.st_ino)
            self._names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
            self._folders |= {entry.inode() for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)}
        else:
            self._contents[status.st_ino] = path.read_bytes()

    def _photograph(self, where: str) -> None:
        for kind, make in (("contents lost", self._contents_lost), ("names lost", self._names_lost)):
            image = self.images / "image"
            shutil.rmtree(image, ignore_errors=True)
            make(image)
            self.look(image, f"{where}, {kind}")

    def _contents_lost(self, image: Path) -> None:
        image.mkdir()
        for path in sorted(self.folder.rglob("*")):
            target = image / path.relative_to(self.folder)
            if path.is_dir():
                target.mkdir()
            else:
                target.write_bytes(self._contents.get(path.stat().st_ino, b""))

    def _names_lost(self, image: Path) -> None:
        self._restore(self.folder.stat().st_ino, image)

    def _restore(self, inode: int, target: Path) -> None:
        if inode not in self._folders:
            target.write_bytes(self._contents.get(inode, b""))
            return
        target.mkdir()
        for name, below in self._names.get(inode, {}).items():
            self._restore(below, target / name)


def try_power_losses(scenario: Scenario, workplace: Path, every: int = 25) -> tuple[int, list[str]]:
    """Run ``scenario`` under the shim; the number of images, and what was wrong with them.

    Of each image the newest whole checkpoint must not be older than what was reported as saved. Every so many images
    are continued to the end and compared with the undisturbed run.
    """
    workplace.mkdir(parents=True)
    log, folder, kept, report = (workplace / name for name in ("log.txt", "case", "kept", "report.json"))
    begin = begin_of(scenario, workplace, log)
    _, expected = record(scenario, folder, begin, log)
    shutil.rmtree(folder)
    shutil.copytree(begin, folder)
    kept.mkdir()

    def under_the_shim() -> None:
        problems: list[str] = []

        def look(image: Path, where: str) -> None:
            shutil.copy(folder / "acknowledged", image) if (folder / "acknowledged").exists() else None
            problems.extend(f"{where}: {problem}" for problem in image_promise(image))
            shim.looked += 1
            if shim.looked % every == 0:
                shutil.copytree(image, kept / str(shim.looked))

        shim = PowerLoss(folder, workplace, look)
        scenario.act(folder)
        report.write_text(json.dumps([shim.looked, problems]))

    if in_child(under_the_shim, log):
        raise RuntimeError(f"the run under the shim failed:\n{log.read_text()[-3000:]}")
    looked, problems = json.loads(report.read_text())
    for image in sorted(kept.iterdir()):
        shutil.rmtree(folder)
        image.rename(folder)
        if ended := in_child(lambda: scenario.act(folder), log):
            problems.append(f"image {image.name}: running again ended with {ended}:\n{log.read_text()[-2000:]}")
        elif problem := compare(f"image {image.name}", scenario.outcome(folder), expected):
            problems.append(problem)
    return looked, problems


def image_promise(image: Path) -> list[str]:
    """A damaged checkpoint is allowed, as it is noticed; a lost one is not, nor a garbled best.json."""
    run = Run(image)
    try:
        run.read_best()
    except ValueError as error:
        return [str(error)]
    return surviving(run)
