"""A signal at the worst moment: the step ends, everything is saved, the exit code says why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.core.folders import verify
from lichen.core.runs import Run
from lichen.trainer.checkpoints import read_checkpoint
from lichen.trainer.interruption import Interruption


def signalling(function, number, when=lambda: True):
    """``function``, in the middle of which the process gets a signal once."""
    sent = []

    def wrapped(*arguments, **options):
        if not sent and when():
            sent.append(number)
            signal.raise_signal(number)
        return function(*arguments, **options)

    return wrapped


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["first forward", "step", "validation", "save"])
def test_a_signal_anywhere_saves_within_the_step(tiny, tmp_path, where, number):
    recipe = tiny.recipe()
    whole = tiny.training(tmp_path / "whole", recipe)
    whole.run()
    found = tiny.training(tmp_path / "parts", recipe)
    if where == "first forward":  # where a compiled model would compile
        found.module.forward = signalling(found.module.forward, number)
    elif where == "step":
        found.step = signalling(found.step, number, lambda: found.state.step == 4)
    elif where == "validation":
        found.look = signalling(found.look, number)
    else:
        found.saver.save = signalling(found.saver.save, number)
    with found.interruption:
        assert found.run() == "interrupted"
    assert found.interruption.exit_code == 128 + number
    checkpoint = read_checkpoint(Run(tmp_path / "parts").latest())
    assert checkpoint.state.step == {"first forward": 1, "step": 5, "validation": 3, "save": 3}[where]
    again = tiny.resumed(tmp_path / "parts", recipe)
    assert again.run() == "finished"
    assert tiny.fingerprint(again) == tiny.fingerprint(whole)


def test_outside_the_block_the_old_handlers_are_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before and not interruption.requested


def test_repeated_sigterm_is_one_request():
    with Interruption() as interruption:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert (interruption.exit_code, interruption.reason) == (143, "SIGTERM")


SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import tiny_training as tiny
found = tiny.training(Path(sys.argv[1]), tiny.recipe(train={"steps": 99, "batch_size": 4}))
step = found.step
def slow(batch, totals):
    print("step", flush=True)
    time.sleep(60 if found.state.step == 4 else 0)
    return step(batch, totals)
found.step = slow
with found.interruption:
    found.run()
"""


def test_a_second_ctrl_c_ends_at_once_and_safely(tmp_path):
    command = [sys.executable, "-c", SLOW, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        for _ in range(5):
            assert process.stdout.readline() == "step\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # the same press, passed on by a launcher
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
    finally:
        process.kill()
        process.communicate()
    [folder] = Run(tmp_path).checkpoint_folders()
    assert folder.name.endswith("0000003") and not verify(folder)
