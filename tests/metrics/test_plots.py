"""Plots: right numbers in the right panels, one page for any mix of runs, no warnings whatever the names."""

import math

import numpy as np
import pytest

from lichen.config.errors import LichenError, UsageError
from lichen.metrics import figures, plots
from lichen.metrics.meters import PARTS
from lichen.metrics.records import Records


def make_run(folder, steps=40, slope=1.0, parts=True, validation=True):
    with Records(folder / "metrics.jsonl") as records:
        for step in range(1, steps + 1):
            times = {f"time_{part}": 0.1 * (number + 1) for number, part in enumerate(PARTS)} if parts else {}
            loss = 2 + 6 * math.exp(-slope * step / 10)
            row = {"lr": 1e-3 * step, "gradient_norm": 5 / step, "tokens": step * 100, "tokens_per_second": 2e4}
            records.append("train", step, loss=loss, **row, **times)
            if validation and step % 10 == 0:
                records.append("validation", step, loss=loss, bits_per_byte=loss / 3)
                records.append("validation", step, loss=1e9, bits_per_byte=1e9, weights="averaged")
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that would be saved."""
    found = []
    monkeypatch.setattr(figures, "save", lambda figure, output: found.append(figure))
    return found


def test_curves_hold_the_numbers_of_the_records(tmp_path, drawn):
    run = make_run(tmp_path / "run")
    plots.plot_runs([run], tmp_path / "curves.png")
    [figure] = drawn
    panels = {panel.get_title(loc="left"): panel for panel in figure.axes}
    loss, bits = panels["loss in nats per token (● validation)"], panels["validation bits per byte"]
    raw, smooth, validation = loss.get_lines()
    assert raw.get_ydata()[0] == pytest.approx(2 + 6 * math.exp(-0.1))
    assert list(validation.get_xdata()) == [10, 20, 30, 40] and max(validation.get_ydata()) < 10
    assert len(smooth.get_xdata()) == 40
    assert list(bits.get_lines()[0].get_xdata()) == [10, 20, 30, 40]
    assert loss.get_yscale() == "log" and panels["learning rate"].get_yscale() == "linear"
    assert panels["gradient norm before clipping"].get_yscale() == "log"


def test_time_shares_add_up_to_all(tmp_path, drawn):
    plots.plot_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b")], tmp_path / "curves.png")
    assert sum(patch.get_width() for patch in drawn[0].axes[5].patches) == pytest.approx(200)


def test_over_tokens(tmp_path, drawn):
    plots.plot_runs([make_run(tmp_path / "run")], tmp_path / "curves.png", "tokens")
    loss = drawn[0].axes[0].get_lines()
    assert loss[0].get_xdata()[-1] == 4000 and list(loss[2].get_xdata()) == [1000, 2000, 3000, 4000]


def test_equal_records_give_equal_files(tmp_path):
    run = make_run(tmp_path / "run", steps=3)
    first, second = tmp_path / "1.svg", tmp_path / "new" / "2.svg"
    plots.plot_runs([run], first)
    plots.plot_runs([run], second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("kind", figures.FORMATS)
def test_equal_bars_give_equal_files_of_every_kind(tmp_path, kind):
    for name in "ab":
        plots.plot_bars({"one": 1.0}, tmp_path / f"{name}.{kind}", "title", "unit")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_any_mix_of_runs_is_drawn_without_a_warning(tmp_path):
    names = ["苔藓 $x_1$", "نص", "𝒳\x07", "a" * 150, "tab\there", "nothing_measured"]
    runs = [make_run(tmp_path / name, steps=number * 3 + 1, parts=number % 2 == 0) for number, name in enumerate(names)]
    with Records(tmp_path / "only_validation" / "metrics.jsonl") as records:
        records.append("validation", 5, loss=1.0)
    with Records(tmp_path / "broken" / "metrics.jsonl") as records:
        records.append("train", 5, loss=float("nan"), gradient_norm=0.0)
    with Records(tmp_path / "no_time" / "metrics.jsonl") as records:
        records.append("train", 5, loss=-1.0, gradient_norm=0.0, **{f"time_{part}": 0.0 for part in PARTS})
    runs += [tmp_path / "only_validation", tmp_path / "broken", tmp_path / "no_time" / "metrics.jsonl"]
    plots.plot_runs(runs, tmp_path / "all.png", title="比较 $ % #")
    assert (tmp_path / "all.png").stat().st_size > 10_000


def test_what_can_not_be_plotted_is_named(tmp_path):
    make_run(tmp_path / "present", steps=1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    with pytest.raises(UsageError, match="nearest: present"):
        plots.plot_runs([tmp_path / "presnt"], tmp_path / "x.png")
    with pytest.raises(UsageError, match="nothing was measured yet"):
        plots.plot_runs([tmp_path / "empty"], tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"\.svg"):
        plots.plot_runs([tmp_path / "present"], tmp_path / "x.bmp")
    with pytest.raises(UsageError, match="no run"):
        plots.plot_runs([], tmp_path / "x.png")
    (tmp_path / "present" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(LichenError, match=r"metrics\.jsonl:1"):
        plots.plot_runs([tmp_path / "present"], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_bars_hold_their_values(tmp_path, drawn):
    plots.plot_bars({"dense": 2.1, "gzip 压缩": 2.9}, tmp_path / "bars.svg", "Held out", "bits", highlighted=["dense"])
    [panel] = drawn[0].axes
    assert [bar.get_width() for bar in panel.patches] == [2.1, 2.9]
    colors = [bar.get_facecolor() for bar in panel.patches]
    assert colors[0] != colors[1]


def test_the_moving_mean_does_not_lag(tmp_path):
    values = np.linspace(0, 10, 101).tolist()
    places, smooth = plots._smooth(values, values)
    assert smooth == pytest.approx(values), "of a straight line it is the line itself"
    assert plots._smooth([], []) == ([], [])
    assert places == values


def test_the_palette_has_no_two_lines_alike():
    styles = [figures.style(number) for number in range(32)]
    assert len(set(styles)) == 32


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a_dense_bs8", "a_none_bs8"], ["dense", "none"]),
        (["dense", "none"], ["dense", "none"]),
        (["x_1", "x_1"], ["x_1", "x_1"]),
        (["a_b", "a"], ["a_b", "a"]),
        (["one"], ["one"]),
        (["a_b_c", "a_c"], ["a_b_c", "a_c"]),
    ],
)
def test_names_are_shortened_by_what_they_share_and_stay_apart(names, short):
    assert figures.common_shortening(names) == short
