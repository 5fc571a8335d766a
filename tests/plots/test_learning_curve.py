"""What is drawn of a run."""

import sys

import matplotlib.image
import pytest

from rlstack.plots.learning_curve import plot_learning_curve

STATS = [
    {
        "env/total_steps": 512.0 * n,
        "returns/mean": float(n),
        "returns/std": 1.0,
        "losses/policy": -0.01,
        "losses/vf": 0.1,
    }
    for n in range(3)
]


@pytest.mark.parametrize("title", ["cartpole", "$x", "a $ b $", "[bold]x", "模拟环境"])
@pytest.mark.parametrize("updates", [1, 3])
def test_a_curve_is_a_picture_whatever_it_is_called(title, updates, tmp_path):
    plot_learning_curve(STATS[:updates], title, tmp_path / "x.png")
    picture = matplotlib.image.imread(tmp_path / "x.png")
    assert picture.shape[:2] == (384, 1200)
    assert picture.min() < picture.max()


def test_it_needs_matplotlib_only_when_it_draws(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="matplotlib"):
        plot_learning_curve(STATS, "x", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("ended", [[], [1, 3]])
def test_the_returns_are_those_of_episodes_where_they_end(ended, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.append(self.axes[0]))
    history = [
        {**STATS[0], "env/total_steps": 512.0 * n, "episodes/count": float(n in ended)} for n in range(4)
    ]
    for n in ended:
        history[n] |= {"episodes/returns/mean": 10.0 * n, "episodes/returns/std": 1.0}
    plot_learning_curve(history, "x", tmp_path / "x.png")
    [axes] = drawn
    [line] = axes.lines
    assert line.get_xydata().tolist() == [[512.0 * n, 10.0 * n] for n in ended]
    assert axes.get_title() == "returns (sum of rewards over an episode)"
