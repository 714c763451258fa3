"""Two ranks compute what one computes, exchange gradients once, and do not wait for ever for one that is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lichen.config.errors import UsageError
from lichen.trainer.runtime import LossScale, Runtime

PROGRAM = Path(__file__).with_name("tiny_training.py")


def start(folder, rank, ranks=2, port=0, program=(str(PROGRAM),)):
    """One rank as a process, as a launcher would start it."""
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *program, str(folder)],
        env={**os.environ, **place, **address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two ranks found side by side, each in its own files."""
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    ranks = [start(folder, rank, port=port) for rank in range(2)]
    outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    tensors = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    return tensors, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


def assert_near(found, expected):
    """Within 1e-5 of the size of the whole."""
    for name, value in expected.items():
        assert float((found[name] - value).norm()) <= 1e-5 * float(value.norm()) + 1e-9, name


def test_ranks_hold_unequal_numbers_of_targets(pair):
    assert pair[1][0]["targets"] != pair[1][1]["targets"]


def test_the_first_gradient_is_that_of_one_process(tiny, tmp_path, pair):
    train = {"steps": 20, "batch_size": 4, "clip": 0.0}
    recipe = tiny.recipe(optim={"name": "sgd", "lr": 0.3}, train=train, evaluation={"every": 0})
    alone = tiny.first_gradient(tiny.training(tmp_path, recipe))
    assert_near(pair[0][0]["gradient"], alone)


def test_the_weights_after_twenty_steps_are_those_of_one_process(tiny, tmp_path, pair):
    train = {"steps": 20, "batch_size": 4, "clip": 0.0}
    found = tiny.training(tmp_path, tiny.recipe(optim={"name": "sgd", "lr": 0.3}, train=train, evaluation={"every": 0}))
    start = {name: value.clone() for name, value in found.module.state_dict().items()}
    found.run()
    assert all(not torch.equal(start[name], value) for name, value in found.module.state_dict().items())
    assert_near(pair[0][0]["weights"], found.module.state_dict())


def test_both_ranks_agree_to_the_bit(pair):
    assert pair[1][0]["bits"] == pair[1][1]["bits"]


def test_no_gradient_is_exchanged_before_the_last_micro_batch(pair):
    for found in pair[1]:
        assert found["exchanges"]["after the first"] == 0
        assert found["exchanges"]["after the last"] > 0


WAITING = """
import time
from lichen.trainer.runtime import Runtime, RankLost
runtime = Runtime.start("fp32", timeout=3, device="cpu")
runtime.barrier()
print("ready", flush=True)
try:
    while True:
        runtime.sum([1.0])
        time.sleep(0.05)
except RankLost as error:
    runtime.abandon(error)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_or_hangs_is_given_up(tmp_path, number):
    port = free_port()
    ranks = [start(tmp_path, rank, port=port, program=("-c", WAITING)) for rank in range(2)]
    try:
        for rank in ranks:
            assert rank.stdout is not None and rank.stdout.readline() == "ready\n"
        ranks[1].send_signal(number)
        begin = time.monotonic()
        output, _ = ranks[0].communicate(timeout=30)
        assert ranks[0].returncode == 1
        assert "rank 0 of 2 lost another rank" in output and "latest checkpoint" in output
        assert time.monotonic() - begin < 30
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def test_one_rank_needs_no_group():
    runtime = Runtime.start("fp32", device="cpu")
    assert (runtime.rank, runtime.world_size, runtime.is_master) == (0, 1, True)
    assert runtime.gather({"a": 1}) == [{"a": 1}]
    assert (runtime.mean(2.0), runtime.any(True), runtime.broadcast("x")) == (2.0, True, "x")
    runtime.barrier()
    assert runtime.sum_tensors({"a": torch.ones(2)})["a"].tolist() == [1, 1]


def test_fp16_is_refused_on_the_cpu():
    with pytest.raises(UsageError, match="fp16"):
        Runtime.start("fp16", device="cpu")


def test_loss_scale_shrinks_at_once_and_grows_slowly():
    scale = LossScale(value=8.0, interval=3)
    values = []
    for applied in (False, True, True, True, True, False):
        scale.update(applied)
        values.append(scale.value)
    assert values == [4.0, 4.0, 4.0, 8.0, 8.0, 4.0]


def test_a_gpu_without_a_number_is_the_best_device(monkeypatch):
    monkeypatch.setattr("lichen.core.device.get_best_device", lambda: torch.device("cuda", 1))
    for given, found in (("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cpu", "cpu")):
        accelerator = SimpleNamespace(device=torch.device(given), process_index=0, num_processes=1)
        assert Runtime(accelerator, None, None, 1.0).device == torch.device(found)


class OnMps(torch.Tensor):
    """A tensor of a device that has no float64."""

    def double(self):
        raise TypeError("no float64 here")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_counts_are_summed_without_float64_on_the_device(monkeypatch):
    runtime = Runtime.start("fp32", device="cpu")
    runtime.world_size = 2
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor, group: tensor.mul_(2))
    assert runtime.sum_tensors({"a": torch.ones(2).as_subclass(OnMps)})["a"].tolist() == [2, 2]


PATIENT = """
import time
from lichen.trainer.runtime import Runtime
runtime = Runtime.start("fp32", timeout=2, device="cpu")
if runtime.is_master:
    time.sleep(5)
runtime.meet()
name = runtime.broadcast("found" if runtime.is_master else None, patient=True)
assert runtime.sum([1.0]) == [2.0]
print(name, flush=True)
runtime.close()
"""


def test_ranks_wait_for_one_that_reads_for_longer_than_the_limit(tmp_path):
    port = free_port()
    ranks = [start(tmp_path, rank, port=port, program=("-c", PATIENT)) for rank in range(2)]
    outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    assert [output.splitlines()[-1] for output in outputs] == ["found", "found"]


def test_a_defect_on_one_rank_is_shown_with_its_place():
    program = (
        "from lichen.trainer.runtime import Runtime\n"
        "runtime = Runtime.start('fp32', device='cpu')\n"
        "try:\n    {}['x']\nexcept KeyError as error:\n    runtime.abandon(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and "KeyError: 'x'" in done.stderr
