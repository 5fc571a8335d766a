"""Environments of TorchRL."""

import re
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import EnvBase, PendulumEnv, StepCounter, TransformedEnv

from rlstack import Algorithm, specs
from rlstack.common.errors import EnvError
from rlstack.env import Env, Pendulum, check_env
from rlstack.env.torchrl import from_torchrl


class Walk(EnvBase):
    """Steps to the left or right on a line: its end ends an episode, four steps break it off."""

    def __init__(self, num_envs, device, *, length=3, one_hot=False, nested=False):
        super().__init__(device=device, batch_size=[num_envs])
        size, self.length, self.nested = (num_envs,), length, nested
        self.choices = (
            specs.OneHot(2, shape=(*size, 2))
            if one_hot
            else specs.Categorical(2, shape=size, dtype=torch.int64)
        )
        place = specs.Unbounded((*size, 1), dtype=torch.float64)
        age = specs.Categorical(99, shape=size)
        self.observation_spec = specs.Composite(
            body=specs.Composite(place=place, shape=size), age=age, shape=size
        )
        self.action_spec = self.choices
        self.reward_spec = specs.Unbounded((*size, 1))
        flag = specs.Binary(1, shape=(*size, 1), dtype=torch.bool)
        self.full_done_spec = specs.Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=size
        )
        self.resets = []

    def _set_seed(self, seed):
        self.rng = torch.Generator(self.device).manual_seed(seed)

    def _reset(self, tensordict, **_):
        rows = None if tensordict is None else tensordict.get("_reset", None)
        self.resets.append(rows)
        place = torch.randint(-1, 2, (*self.batch_size, 1), generator=self.rng).double()
        age = torch.zeros(self.batch_size, dtype=torch.int64)
        if rows is None:
            self.place, self.age = place, age
        else:
            self.place, self.age = place.where(rows, self.place), age.where(rows.squeeze(-1), self.age)
        return self._said()

    def _step(self, tensordict):
        action = tensordict["action"]
        assert self.choices.is_in(action)
        action = action.long().argmax(-1) if action.dim() == 2 else action
        self.place = self.place + 2 * action.unsqueeze(-1) - 1
        self.age = self.age + 1
        terminated = self.place.abs() >= self.length
        truncated = (self.age >= 4).unsqueeze(-1)
        said = self._said()
        said.update({"terminated": terminated, "truncated": truncated, "done": terminated | truncated})
        return said.set("reward", self.place.float())

    def _said(self):
        body = TensorDict({"place": self.place}, self.batch_size)
        return TensorDict({"body": body, "age": self.age}, self.batch_size)


def pendulum(num_envs, device):
    return PendulumEnv(device=device)


def limited(num_envs, device, max_steps=3):
    return TransformedEnv(PendulumEnv(device=device), StepCounter(max_steps=max_steps))


def place_of(batch):
    return batch["body", "place"]


@pytest.mark.parametrize(
    "cls",
    [
        from_torchrl(Walk),
        from_torchrl(Walk, observations=["body"], one_hot=True),
        from_torchrl(pendulum),
        from_torchrl(limited, observations=["th", "thdot"]),
    ],
)
def test_check_env_finds_no_faults(cls):
    report = check_env(cls, num_envs=5, steps=9)
    assert report.faults == []
    said = {finding.name: finding.said for finding in report.findings if finding.level == "note"}
    assert set(said) == {"state", "graph"}
    assert "a resumed run resets it" in said["state"]


def test_specs_are_its_own_with_a_dimension_at_least():
    env = from_torchrl(Walk)(5)
    assert isinstance(env, Env)
    assert dict(specs.leaves(env.observation_spec)) == {
        ("body", "place"): specs.Unbounded((1,)),
        ("age",): specs.Categorical(99, shape=(1,)),
    }
    assert env.action_spec == specs.Categorical(2, shape=(1,))
    single = from_torchrl(Walk, observations=["body.place"], one_hot=True)(5)
    assert single.observation_spec == specs.Unbounded((1,))
    assert single.action_spec == specs.Categorical(2, shape=(1,))
    assert single.reset().dtype == torch.float32


@pytest.mark.parametrize("one_hot", [False, True])
def test_episodes_end_as_they_do_there(one_hot):
    env = from_torchrl(Walk, one_hot=one_hot)(6)
    place, age = place_of(env.reset()), torch.zeros(6, 1)
    seen = torch.zeros(2)
    for _ in range(40):
        action = torch.randint(2, (6, 1))
        out = env.step(action)
        after, age = place + 2 * action - 1, age + 1
        terminated = after.abs() >= 3
        assert torch.equal(out["terminated"], terminated)
        assert torch.equal(out["truncated"], (age >= 4) & ~terminated)
        assert torch.equal(place_of(out["final_obs"]), after)
        assert torch.equal(out["final_obs"]["age"], age.long())
        assert torch.equal(out["rewards"], after)
        ended = terminated | (age >= 4)
        now = place_of(out["obs"])
        assert torch.equal(now[~ended], after[~ended])
        assert (now[ended].abs() <= 1).all()
        assert torch.equal(out["obs"]["age"], age.masked_fill(ended, 0).long())
        place, age = now, age.masked_fill(ended, 0)
        seen += torch.stack([terminated.sum(), (ended & ~terminated).sum()])
    assert (seen > 5).all()
    assert any(rows is not None and not rows.all() for rows in env._env.resets)


def test_an_environment_without_batch_size_is_what_it_is_here():
    """TorchRL's Pendulum and Gymnasium's, which rlstack has itself, from the same states."""
    env, ours = from_torchrl(pendulum, observations=["th", "thdot"])(7), Pendulum(7)
    obs = env.reset()
    ours.state = torch.cat([obs["th"], obs["thdot"]], -1)
    for _ in range(20):
        action = 4 * torch.rand(7, 1) - 2
        out, expected = env.step(action), ours.step(action)
        torch.testing.assert_close(out["rewards"], expected["rewards"])
        torch.testing.assert_close(out["obs"]["th"].cos(), expected["obs"][:, :1])
        torch.testing.assert_close(out["obs"]["thdot"], expected["obs"][:, 2:])
        assert not out["terminated"].any()


def test_options_reach_the_function():
    def ends(env):
        env.reset()
        return [env.step(torch.zeros(2, 1))["truncated"].all().item() for _ in range(4)]

    cls = from_torchrl(limited, max_steps=2)
    assert ends(cls(2)) == [False, True, False, True]
    env = cls(2, config={"max_steps": 1})
    assert ends(env) == [True] * 4
    env.reset(config={"max_steps": 4})
    assert ends(env) == [False, False, False, True]
    with pytest.raises(
        EnvError, match=r"env_config.steps is not an option of limited: did you mean max_steps"
    ):
        cls(2, config={"steps": 1})
    with pytest.raises(EnvError, match=r"env_config.steps is not an option of pendulum, which takes none"):
        from_torchrl(pendulum, steps=1)
    changing = from_torchrl(Changing)(2)
    with pytest.raises(EnvError, match=r"can't change its observations or actions at a reset, by three"):
        changing.reset(config={"three": True})
    assert changing.action_spec == specs.Categorical(2, shape=(1,))
    changing.reset()
    assert changing.step(torch.ones(2, 1, dtype=torch.int64))["rewards"].shape == (2, 1)


class Changing(Walk):
    def __init__(self, num_envs, device, *, three=False):
        super().__init__(num_envs, device)
        if three:
            self.action_spec = specs.Categorical(3, shape=(num_envs,))


def test_what_does_not_fit_is_refused():
    def wrong_size(num_envs, device):
        return Walk(num_envs + 1, device)

    with pytest.raises(EnvError, match=r"wrong_size has batch size \[4\], expected \[3\]: make it with"):
        from_torchrl(wrong_size)(3)
    with pytest.raises(EnvError, match=r"body.plase is not an observation of Walk: did you mean body.place"):
        from_torchrl(Walk, observations=["body.plase"])(3)


def test_it_can_be_trained_on():
    cls = from_torchrl(Walk)
    algorithm = Algorithm(cls, num_envs=32, horizon=16, horizons_per_env_reset=-1)
    first = algorithm.collect()
    for _ in range(15):
        algorithm.step()
        last = algorithm.collect()
    # Always to the right is 1 + 2 + 3 at the best.
    assert last["episodes/returns/mean"] > first["episodes/returns/mean"] + 3


def test_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "simulators" / "torchrl.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 20
    exec(compile(code, "torchrl.md", "exec"), {"__name__": "__main__"})
    assert float(capsys.readouterr().out) < -1
