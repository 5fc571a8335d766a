"""Several runs in one picture."""

import json
import shutil

import matplotlib.image
import pytest
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.common.errors import RunDirError, StatisticError
from rlstack.plots.curves import band
from rlstack.plots.runs import plot_runs


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a directory of runs: two seeds of one training, and another one."""
    home = tmp_path_factory.mktemp("runs")
    tiny = ["num_envs=8", "horizon=8", "sgd_minibatch_size=None", "model_config.hiddens=[8]", "device=cpu"]
    for name, more in (("a", ["--seed", "0"]), ("b", ["--seed", "1"]), ("c", ["gamma=0.5", "--seed", "1"])):
        words = ["train", "cartpole", *tiny, *more, "--max-updates", "4", "--tracking", "off"]
        result = CliRunner().invoke(main, [*words, "--run-dir", str(home / "both" / name)])
        assert result.exit_code == 0, result.output
    (home / "other").mkdir()
    shutil.move(home / "both" / "c", home / "other" / "c")
    return home


@pytest.fixture
def drawn(monkeypatch):
    """Return what is drawn: figures, instead of files."""
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: figures.append(self))
    return figures


def rows(run):
    return [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_seeds_are_one_curve_with_their_range(trained, drawn):
    groups = plot_runs([trained / "both", trained / "other" / "c"], "x.png", stats=["returns/mean"])
    assert groups == {
        "both": [trained / "both" / "a", trained / "both" / "b"],
        "c": [trained / "other" / "c"],
    }
    [axes] = drawn[0].axes
    both, other = axes.lines
    first, second = ([row["returns/mean"] for row in rows(trained / "both" / name)] for name in "ab")
    assert both.get_xydata()[0].tolist() == [64.0, (first[0] + second[0]) / 2]
    assert both.get_xydata()[-1].tolist() == [256.0, (first[-1] + second[-1]) / 2]
    [area] = axes.collections
    ends = area.get_datalim(axes.transData)
    assert (ends.y0, ends.y1) == pytest.approx((min(first + second), max(first + second)))
    assert [value for _, value in other.get_xydata().tolist()] == [
        row["returns/mean"] for row in rows(trained / "other" / "c")
    ]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[::2] == ["both: median and range of 2"]
    assert "c" in labels


@pytest.mark.parametrize(("x", "label"), [("updates", "updates"), ("seconds", "seconds of collecting")])
def test_over_what(x, label, trained, drawn):
    plot_runs([trained / "other"], "x.svg", stats=["losses/vf", "losses/policy"], x=x)
    assert [axes.get_ylabel() for axes in drawn[0].axes] == ["losses/vf", "losses/policy"]
    axes = drawn[0].axes[0]
    assert axes.get_xlabel().startswith(label)
    at = [x for x, _ in axes.lines[0].get_xydata().tolist()]
    history = rows(trained / "other" / "c")
    busy = [row["profiling/collect_ms"] + row["profiling/step_ms"] for row in history]
    assert at == (
        [1, 2, 3, 4] if x == "updates" else [pytest.approx(sum(busy[: n + 1]) / 1000) for n in range(4)]
    )


def test_the_command_writes_pictures(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = str(trained / "both")
    result = CliRunner().invoke(main, ["plot", both])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "Picture: curves.png"
    picture = matplotlib.image.imread("curves.png")
    assert picture.min() < picture.max()
    result = CliRunner().invoke(main, ["plot", both, "--stat", "losses/vf", "--output", "my curves.svg"])
    assert result.exit_code == 0, result.output
    assert "<svg" in (tmp_path / "my curves.svg").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--stat", "losses/vff"], "has no statistic losses/vff: did you mean losses/vf?"),
        (["--output", "x.gif"], "--output is x.gif, expected a name that ends in .png or .svg"),
        (["."], ". is no run: neither it nor a directory in it has a metrics.jsonl"),
    ],
)
def test_what_is_wrong_is_one_sentence(more, message, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plot", str(trained / "both"), *more])
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


def test_without_matplotlib(trained, monkeypatch):
    monkeypatch.setattr("rlstack.cli.plot_command.find_spec", lambda name: None)
    result = CliRunner().invoke(main, ["plot", str(trained / "both")])
    assert "drawing needs matplotlib: pip install 'rlstack[viz]'" in result.output


def test_errors_in_a_program(trained, tmp_path):
    with pytest.raises(ValueError, match=r"x\.gif, expected a name that ends in \.png or \.svg"):
        plot_runs([trained / "both"], "x.gif")
    with pytest.raises(StatisticError, match="did you mean losses/vf"):
        plot_runs([trained / "both"], "x.png", stats=["losses/v"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    with pytest.raises(RunDirError, match="has not made an update yet"):
        plot_runs([tmp_path], "x.png")


def test_a_curve_that_has_ended_goes_on_as_it_ended():
    curves = [[(0.0, 0.0), (10.0, 10.0)], [(0.0, 2.0), (20.0, 4.0)], [(5.0, 1.0), (20.0, 1.0)]]
    points = band(curves)
    assert points[0] == (5.0, 0.0, 1.0, 2.0)
    assert points[-1] == (20.0, 1.0, 4.0, 10.0)
