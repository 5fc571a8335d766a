"""Exported policies do what the policies do, and say so; what can't be exported is named."""

import io
import json
import re

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from tensordict import TensorDict

from rlstack import ExportError, Trainer, specs
from rlstack.cli.app import main
from rlstack.conditions import HitsUpperBound
from rlstack.distributions import Distribution
from rlstack.env import CartPole
from rlstack.export.tensors import apart
from rlstack.models import DiscreteMLP, Model
from rlstack.policies import Policy

from ..helpers import SMALL, CompositeEnv, CompositeModel, composite_distribution
from ..policies.test_single import CASES, make

SPECS = specs.Unbounded((3,)), specs.Categorical(4, shape=(1,))


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == list(inputs)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_pt2(path, inputs):
    outputs = torch.export.load(path).module()(*[torch.from_numpy(value) for value in inputs.values()])
    return {name: value.detach().numpy() for name, value in outputs.items()}


def inputs_of(policy, rows):
    """Return observations, as the policy takes them and as an exported one does."""
    obs = policy.observation_spec.rand((rows,))
    names = [".".join(("obs", *path)) for path, _ in specs.leaves(policy.acting_spec)]
    return obs, {name: part.numpy() for name, part in zip(names, apart(policy.acting_spec, obs), strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_a_program_of_torch_acts_as_the_policy(case, tmp_path):
    policy = make(case, normalize=case != "real")
    if policy.normalizer is not None:
        policy.normalizer.update(policy.observation_spec.rand((20,)))
    made = policy.export(tmp_path / "policy.pt2")
    assert made.largest_error < 1e-5
    for rows in (1, 5):
        obs, inputs = inputs_of(policy, rows)
        step = policy.act(obs, deterministic=True)
        found = run_pt2(made.path, inputs)["action"]
        assert found.dtype == step.actions.numpy().dtype
        np.testing.assert_allclose(found, step.actions, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_an_onnx_model_acts_as_the_policy(recurrent, tmp_path):
    policy = make("keys", recurrent=recurrent, normalize=True)
    policy.normalizer.update(policy.observation_spec.rand((20,)))
    made = policy.export(tmp_path / "policy.onnx")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["policy.onnx", "policy.onnx.md"]
    for rows in (1, 5):
        state, memory = policy.initial_state(rows), {}
        if recurrent:
            parts = apart(policy.state_spec, state)
            names = [f"state.{path[0]}" for path, _ in specs.leaves(policy.state_spec)]
            memory = {name: part.numpy() for name, part in zip(names, parts, strict=True)}
        for _ in range(3):
            obs, inputs = inputs_of(policy, rows)
            step = policy.act(obs.exclude("wind"), state, deterministic=True)
            found = run_onnx(made.path, {**inputs, **memory})
            np.testing.assert_allclose(found["action"], step.actions, rtol=1e-5, atol=1e-5)
            state, memory = step.state, {name: found[f"next_{name}"] for name in memory}
        assert not recurrent or any(part.any() for part in memory.values())


# Squashed numbers stand for the others where time is short.
@pytest.mark.parametrize(
    "case",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("one choice", "several choices", "one-hot", "binary")
        ),
        "squashed",
    ],
)
def test_chance_comes_from_outside(case, tmp_path):
    policy = make(case)
    made = policy.export(tmp_path / "policy.pt2", deterministic=False)
    obs, inputs = inputs_of(policy, 4000)
    law = policy.distribution_cls.noise
    shape = run_pt2(policy.export(tmp_path / "same.pt2").path, inputs)
    [feature] = [value for name, value in shape.items() if name in ("feature.logits", "feature.mean")]
    rng = np.random.default_rng(0)
    draw = {
        "standard normal": rng.standard_normal,
        "standard exponential": rng.standard_exponential,
        "uniform in [0, 1)": rng.random,
    }[law]
    noise = draw(feature.shape).astype(np.float32)
    actions = run_pt2(made.path, {**inputs, "noise": noise})["action"].astype(float)
    drawn = policy.act(obs).actions.numpy().astype(float)
    # Other random numbers, the same distribution.
    assert actions.std(0).min() > 0
    np.testing.assert_allclose(actions.mean(0), drawn.mean(0), atol=5 * drawn.std() / 4000**0.5 * 1.5)


def test_from_noise_has_the_form_of_a_sample():
    for case in CASES:
        policy = make(case)
        obs = policy.observation_spec.rand((6,))
        features, _, state = policy.acting_step(obs, None)
        assert state is None
        distribution = policy.distribution_cls(features, policy.model)
        shape = distribution.noise_shape()
        noise = torch.rand(shape) if distribution.noise != "standard normal" else torch.randn(shape)
        drawn, example = distribution.from_noise(noise), distribution.sample()
        assert (drawn.shape, drawn.dtype) == (example.shape, example.dtype)


def test_a_choice_that_is_forbidden_is_never_made(tmp_path):
    policy = make("masked")
    made = policy.export(tmp_path / "policy.pt2", deterministic=False)
    obs, inputs = inputs_of(policy, 500)
    noise = np.random.default_rng(0).standard_exponential((500, 1, 4)).astype(np.float32)
    noise[::7] = 0
    found = run_pt2(made.path, {**inputs, "noise": noise})
    allowed = policy.action_mask.allowed(obs)
    assert allowed.gather(-1, torch.from_numpy(found["action"]).unsqueeze(-1)).all()
    assert (np.isneginf(found["feature.logits"]) == ~allowed.numpy()).all()


class Own(Model):
    """Two networks in one, and a memory of nothing."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.GELU(), torch.nn.Linear(8, 5))

    def forward(self, obs):
        logits, values = self.net(obs / (1 + obs.square().sum(-1, keepdim=True))).split([4, 1], -1)
        return TensorDict({"logits": logits.unsqueeze(1)}, batch_size=obs.shape[:1]), values


def test_own_models(tmp_path):
    policy = Policy(Own(*SPECS))
    made = policy.export(tmp_path / "policy.pt2")
    obs, inputs = inputs_of(policy, 7)
    found = run_pt2(made.path, inputs)["action"]
    np.testing.assert_array_equal(found, policy.act(obs, deterministic=True).actions)


def test_rows_that_are_counted_in_python_are_refused(tmp_path):
    env = CompositeEnv(4)
    policy = Policy(CompositeModel(env.observation_spec, env.action_spec), composite_distribution())
    with pytest.raises(ExportError, match=r"CompositeModel or .* write values\.shape\[0\] for len\(values\)"):
        policy.export(tmp_path / "policy.pt2")


def test_the_page_beside_it_says_what_goes_in_and_out(tmp_path):
    policy = make("squashed", recurrent=True)
    page = policy.export(tmp_path / "robot.pt2", deterministic=False).guide.read_text()
    assert "| `obs` | float32 | [batch, 3] | any number |" in page
    assert "| `action` | float32 | [batch, 2] | from [-2, 0] to [2, 10] |" in page
    assert re.search(r"\| `state\.hidden` \| float32 \| \[batch, 1, 8\] \| memory: zeros", page)
    assert "| `next_state.hidden` | float32 | [batch, 1, 8] | memory after this step" in page
    assert (
        "| `noise` | float32 | [batch, 2] | random numbers, new ones for each step: standard normal |" in page
    )
    assert re.search(r"differs from the policy by at most \d", page)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_the_lines_on_the_page_run(ending, tmp_path, monkeypatch):
    policy = make("masked")
    page = policy.export(tmp_path / f"robot.{ending}").guide.read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert tuple(names["action"].shape) == (1, 1)


class Jumping(Model):
    """Does something else for other numbers."""

    def __init__(self, observation_spec, action_spec, /):
        super().__init__(observation_spec, action_spec)
        self.inner = DiscreteMLP(observation_spec, action_spec, **SMALL)

    def forward(self, obs):
        if obs.sum() > 0:
            obs = -obs
        return self.inner(obs)


class Counting(Jumping):
    """Does something else each time."""

    calls = 0

    def forward(self, obs):
        self.calls += 1
        features, values = self.inner(obs)
        return TensorDict({"logits": features["logits"] + self.calls}, obs.shape[:1]), values


def test_what_cannot_be_traced_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"^Jumping can't be exported, see test_export.py:\d+, `if obs.sum"):
        Policy(Jumping(*SPECS)).export(tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_does_something_else_then_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"feature\.logits of the exported policy differs by"):
        Policy(Counting(*SPECS)).export(tmp_path / "policy.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_distribution_without_noise_acts_without_chance(tmp_path):
    class Own(Distribution):
        def sample(self):
            return self.features["logits"].argmin(-1)

        def deterministic_sample(self):
            return self.features["logits"].argmax(-1)

        def logp(self, drawn):
            return self.features["logits"][:, 0, :1]

        entropy = None

    Own.__abstractmethods__ = frozenset()
    policy = Policy(DiscreteMLP(*SPECS, **SMALL), Own)
    assert policy.export(tmp_path / "policy.pt2").largest_error < 1e-5
    with pytest.raises(ExportError, match="Own can't sample in an exported policy: define noise"):
        policy.export(tmp_path / "policy.pt2", deterministic=False)


def test_names_and_what_is_missing(tmp_path, monkeypatch):
    policy = make("real")
    with pytest.raises(ExportError, match=r"has no ending that says what to write: use \.onnx or \.pt2"):
        policy.export(tmp_path / "policy.tflite")
    monkeypatch.setattr("rlstack.export.programs.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"ONNX needs onnx, .*: pip install 'rlstack\[export\]'"):
        policy.export(tmp_path / "policy.onnx")


def test_random_numbers_and_the_policy_are_as_before(tmp_path):
    policy = make("real", normalize=True)
    before = io.BytesIO()
    torch.save(policy.state_dict(), before)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    policy.train().export(tmp_path / "policy.pt2")
    assert torch.equal(torch.rand(3), expected)
    assert policy.training
    after = io.BytesIO()
    torch.save(policy.state_dict(), after)
    assert before.getvalue() == after.getvalue()


def test_the_command_exports_a_run(tmp_path):
    config = {"num_envs": 8, "horizon": 8, "model_config": SMALL, "device": "cpu", "seed": 0}
    with Trainer(CartPole, algorithm_config=config, run_dir=tmp_path / "run", track=False) as trainer:
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/steps", 1)])
        policy = trainer.algorithm.policy

    def export(*arguments):
        return CliRunner().invoke(main, ["export", str(tmp_path / "run"), *arguments])

    done = export("--to", "pt2", "--json")
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    assert said["policy"] == str(tmp_path / "run" / "policy.pt2")
    assert said["largest_error"] < 1e-5
    obs, inputs = inputs_of(policy, 3)
    actions = run_pt2(said["policy"], inputs)["action"]
    np.testing.assert_array_equal(actions, policy.act(obs, deterministic=True).actions)
    wrong = export("--to", "onnx", "--output", str(tmp_path / "policy.pt2"))
    assert wrong.exit_code == 2
    assert "expected a name that ends in .onnx" in wrong.output
