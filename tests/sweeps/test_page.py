"""What `docs/sweeps.md` shows is what there is."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from rlstack.cli.app import main
from rlstack.cli.sweep_file import SweepFile
from rlstack.runs.yaml_format import dump, parse

from ..pages import DOCS, commands

ROOT = DOCS.parent
PAGE = (DOCS / "sweeps.md").read_text()


def test_the_sweep_that_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [shown] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    Path("sweep.yaml").write_text(shown)
    asked = SweepFile.read(Path("sweep.yaml"))
    assert [*asked.config.dimensions()] == [*asked.said["sweep"]["search"]]
    # The same, small.
    said = parse(shown, "sweep.yaml")
    said["algorithm_config"] |= {"num_envs": 8, "horizon": 4, "sgd_minibatch_size": 32, "device": "cpu"}
    said["sweep"] |= {"trials": 2, "seeds": [0], "max_env_steps": 64}
    Path("sweep.yaml").write_text(dump(said))
    words = [*commands("sweeps.md", "sweep -f"), *commands("sweeps.md", "--report")]
    for each, more in zip(words, (["--jobs", "1", "--tracking", "off"], []), strict=True):
        result = CliRunner().invoke(main, [*each, *more])
        assert result.exit_code == 0, result.output
    for name in re.findall(r"`(\w+\.(?:png|csv))`", PAGE.partition("## A sweep")[2]):
        assert Path("runs/sweep", name).exists(), name


def test_the_seeds_that_it_shows(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "rlstack.cli.seeds.train_seeds", lambda *args, **kwargs: asked.append((args, kwargs)) or 0
    )
    [words] = commands("sweeps.md", "--seeds")
    assert CliRunner().invoke(main, words).exit_code == 0
    [((kept, _, seeds), options)] = asked
    assert (kept, seeds, options["jobs"]) == (["cartpole"], [*range(10)], 2)


@pytest.mark.parametrize("key", ["pruner", "sampler"])
def test_pruners_and_samplers_that_it_names(key, tmp_path):
    from rlstack.sweeps.options import SweepConfig
    from rlstack.sweeps.study import _made

    optuna = pytest.importorskip("optuna")
    named = re.findall(rf"`{key}: ({{.*?}})`", PAGE)
    named += ["{NopPruner: {}}"] if key == "pruner" else []
    assert named
    for text in named:
        config = SweepConfig(search={"gamma": [0.9]}, max_updates=1, **{key: yaml.safe_load(text)})
        config.check()
        assert _made(getattr(optuna, f"{key}s"), key, getattr(config, key))


def test_its_links_extras_and_targets_are_there():
    links = re.findall(r"\]\(([^):]+)\)", PAGE)
    assert [link for link in links if not (DOCS / link).exists()] == []
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*re.findall(r"rlstack\[([\w-]+)\]", PAGE)} <= {*extras}
    for target in re.findall(r"`make ([\w-]+)`", PAGE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    proofs = re.findall(r"`python -m proofs (\w+)`", PAGE)
    assert all((ROOT / "proofs" / f"{name}.py").exists() for name in proofs)
