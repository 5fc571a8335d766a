"""Episodes that end within horizons, against a reference that rolls each of them out by itself."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from rlstack import Algorithm, RecurrentAlgorithm, specs
from rlstack.env import Env
from rlstack.models import RecurrentModel
from rlstack.ppo.losses import ppo_loss
from tests.helpers import parameters
from tests.standin import StandIn, like_on_a_gpu, record

GOES_ON, TERMINATES, BREAKS_OFF = 0, 1, 2


class Scripted(Env):
    """Episodes end as `script` [steps][environment] says; all else follows from where one is."""

    script: list[list[int]]
    keys = ("terminated", "truncated", "final_obs")

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Unbounded((3,))
        self.action_spec = specs.Categorical(2, shape=(1,))
        self.endings = torch.tensor(self.script).unsqueeze(-1)
        self.clock = torch.zeros(1, dtype=torch.int64)
        self.episode = torch.zeros(num_envs, 1, dtype=torch.int64)
        self.age = torch.zeros(num_envs, 1, dtype=torch.int64)

    def reset(self, *, config=None):
        self.episode = self.episode + 1
        self.age = torch.zeros_like(self.age)
        return self._obs()

    def step(self, action):
        how = self.endings.index_select(0, self.clock % len(self.endings))[0]
        self.clock = self.clock + 1
        self.age = self.age + 1
        rewards = torch.cos(self._place() + action)
        last = self._obs()
        ended = how != GOES_ON
        self.episode = torch.where(ended, self.episode + 1, self.episode)
        self.age = torch.where(ended, 0, self.age)
        said = {
            "terminated": how == TERMINATES,
            "truncated": how == BREAKS_OFF,
            # What is no final observation may be anything.
            "final_obs": torch.where(ended, last, torch.nan),
        }
        said = {key: said[key] for key in self.keys if key in said}
        return TensorDict({"obs": self._obs(), "rewards": rewards, **said}, self.num_envs)

    def _place(self):
        envs = torch.arange(self.num_envs).unsqueeze(-1)
        return (7 * envs + 3 * self.episode + self.age).to(torch.get_default_dtype())

    def _obs(self):
        place = self._place()
        return torch.cat([torch.sin(place), torch.cos(2 * place), 0.1 * self.age.to(place.dtype)], -1)


class GRU(RecurrentModel):
    """A memory of one's own, which knows nothing of endings."""

    def __init__(self, observation_spec, action_spec, /, **config):
        super().__init__(observation_spec, action_spec, **config)
        self.cell = torch.nn.GRUCell(3, 5)
        self.heads = torch.nn.Linear(5, 3)
        dtype = torch.get_default_dtype()
        self.state_spec = specs.Composite(nested=specs.Composite(h=specs.Unbounded((5,), dtype=dtype)))

    def forward(self, obs, state):
        h, outputs = state["nested", "h"], []
        for t in range(obs.shape[1]):
            h = self.cell(obs[:, t], h)
            outputs.append(h)
        logits, values = self.heads(torch.stack(outputs, 1)).split([2, 1], -1)
        after = TensorDict({"nested": {"h": h}}, len(obs))
        return TensorDict({"logits": logits.unsqueeze(-2)}, obs.shape[:2]), values, after


RECURRENT = {
    "lstm": {"model_config": {"hidden_size": 6}},
    "two lstms": {"model_config": {"hidden_size": 6, "num_layers": 2}},
    "gru": {"model_cls": GRU},
}


def make(script, kind="feedforward", *, making=None, keys=Scripted.keys, env_cls=None, **hyperparameters):
    env_cls = env_cls or type("Env", (Scripted,), {"script": script, "keys": keys})
    horizon = hyperparameters.setdefault("horizon", len(script))
    options = {
        "num_envs": len(script[0]),
        "normalize_advantages": False,
        "gamma": 0.9,
        "gae_lambda": 0.8,
        "vf_clip_param": None,
        "seed": 1,
        **hyperparameters,
    }
    if kind == "feedforward":
        options.setdefault("model_config", {"hiddens": [8]})
        cls = Algorithm
    else:
        cls = RecurrentAlgorithm
        options = {**RECURRENT[kind], "seq_len": horizon, "seqs_per_state_reset": -1, **options}
    return making(cls, env_cls, **options) if making else cls(env_cls, **options)


class Reference:
    """Every episode of every environment by itself, in lists of Python's floats."""

    def __init__(self, algorithm):
        self.algorithm, hp = algorithm, algorithm.hparams
        self.gamma, self.trace = hp.gamma, hp.gamma * hp.gae_lambda
        self.num_envs, self.horizon = hp.num_envs, hp.horizon
        self.script = algorithm.env.script
        self.clock, self.number, self.all_sums = 0, [0] * self.num_envs, []
        self.restart()

    def restart(self):
        self.number = [number + 1 for number in self.number]
        self.age, self.state = [0] * self.num_envs, [None] * self.num_envs
        self.discounted, self.total = [0.0] * self.num_envs, [0.0] * self.num_envs
        self.length = [0] * self.num_envs

    def value(self, obs, state):
        """The value of one observation, and the state after it."""
        said = self.algorithm.policy.act(torch.tensor([obs]), state)
        return said.values.item(), said.state

    def obs(self, env, age):
        place = float(7 * env + 3 * self.number[env] + age)
        return [math.sin(place), math.cos(2 * place), 0.1 * age]

    def collect(self):
        """One horizon: advantages, returns, values, the scale of rewards, and episodes that ended."""
        actions = self.algorithm.collector.buffer.drawn
        self.advantages, self.returns, self.values, self.episodes = [], [], [], []
        raw, ends, nexts, values = ([[] for _ in range(self.num_envs)] for _ in range(4))
        for env in range(self.num_envs):
            for t in range(self.horizon):
                value, self.state[env] = self.value(self.obs(env, self.age[env]), self.state[env])
                self.age[env] += 1
                place = 7 * env + 3 * self.number[env] + self.age[env]
                reward = math.cos(place + actions[t, env].item())
                how = self.script[(self.clock + t) % len(self.script)][env]
                after = self.value(self.obs(env, self.age[env]), self.state[env])[0]
                values[env].append(value)
                raw[env].append(reward)
                nexts[env].append(0.0 if how == TERMINATES else after)
                ends[env].append(how != GOES_ON)
                self.discounted[env] = self.gamma * self.discounted[env] + reward
                self.all_sums.append(self.discounted[env])
                self.total[env] += reward
                self.length[env] += 1
                if how != GOES_ON:
                    self.episodes.append((self.total[env], self.length[env]))
                    self.number[env] += 1
                    self.age[env], self.state[env], self.discounted[env] = 0, None, 0.0
                    self.total[env], self.length[env] = 0.0, 0
        self.clock += self.horizon
        scale = spread(self.all_sums) if self.algorithm.hparams.normalize_rewards else 1.0
        for env in range(self.num_envs):
            advantages = []
            for t in range(self.horizon):
                advantage, weight = 0.0, 1.0
                for k in range(t, self.horizon):
                    reward = raw[env][k] / (scale if scale >= 1e-6 else 1.0)
                    advantage += weight * (reward + self.gamma * nexts[env][k] - values[env][k])
                    weight *= self.trace
                    if ends[env][k]:
                        break
                advantages.append(advantage)
            self.advantages.append(advantages)
            self.returns.append([a + v for a, v in zip(advantages, values[env], strict=True)])
        self.values = values
        return scale


def spread(numbers):
    mean = sum(numbers) / len(numbers)
    return math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))


def assert_as_each_episode(algorithm, *, resets=1, updates=3):
    """Compare some horizons with the reference."""
    reference, hp = Reference(algorithm), algorithm.hparams
    for number in range(updates):
        stats = algorithm.collect()
        if number and resets > 0 and number % resets == 0:
            reference.restart()
        scale = reference.collect()
        algorithm.advantages.estimate()
        buffer, told = algorithm.collector.buffer, algorithm.advantages.sequences
        _, _, advantages, returns = told._columns.unflatten(1, (hp.horizon, hp.num_envs))
        torch.testing.assert_close(buffer.values[:-1, :, 0].T, torch.tensor(reference.values))
        torch.testing.assert_close(advantages.T, torch.tensor(reference.advantages))
        torch.testing.assert_close(returns.T, torch.tensor(reference.returns))
        if hp.normalize_rewards:
            assert algorithm.advantages.return_moments.var.sqrt().item() == pytest.approx(scale, abs=1e-9)
        assert_episodes(stats, reference.episodes)
        update = algorithm.step()
        assert update["monitors/kl_div"] == pytest.approx(0, abs=1e-10)
        assert update["monitors/clip_fraction"] == 0


def assert_episodes(stats, episodes):
    found = {name: value for name, value in stats.items() if name.startswith("episodes/")}
    if not episodes:
        assert found == {"episodes/count": 0}
        return
    returns, lengths = zip(*episodes, strict=True)
    assert found == pytest.approx(
        {
            "episodes/count": len(episodes),
            "episodes/returns/mean": sum(returns) / len(returns),
            "episodes/returns/std": spread(returns),
            "episodes/returns/min": min(returns),
            "episodes/returns/max": max(returns),
            "episodes/lengths/mean": sum(lengths) / len(lengths),
        },
        abs=1e-7,
    )


STILL = {"optimizer_config": {"lr": 0.0}, "num_sgd_iters": 1, "entropy_coeff": 0.0}

PATTERNS = {
    "none": [[0, 0]] * 6,
    "all": [[1, 2]] * 6,
    "first": [[1, 2]] + [[0, 0]] * 5,
    "last": [[0, 0]] * 5 + [[2, 1]],
    "two in one": [[0, 0], [2, 0], [0, 1], [0, 0], [1, 2], [0, 0]],
    "consecutive": [[0, 0], [2, 1], [2, 1], [1, 2], [0, 0], [0, 0]],
}

KINDS = ["feedforward", *RECURRENT]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.usefixtures("float64")
def test_as_each_episode_by_itself(pattern, kind, engine):
    assert_as_each_episode(make(PATTERNS[pattern], kind, engine=engine, **STILL))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("resets", [1, 3, -1])
@pytest.mark.usefixtures("float64")
def test_resets_and_sequences_shorter_than_a_horizon(kind, resets):
    script = PATTERNS["two in one"] + PATTERNS["consecutive"]
    shorter = {} if kind == "feedforward" else {"seq_len": 3}
    algorithm = make(script, kind, horizons_per_env_reset=resets, horizon=6, **shorter, **STILL)
    assert_as_each_episode(algorithm, resets=resets, updates=5)


@pytest.mark.parametrize("kind", ["feedforward", "two lstms", "gru"])
@pytest.mark.usefixtures("float64")
def test_as_on_a_gpu_and_replayed(kind):
    script = [[0, 2, 1], [2, 0, 0], [2, 2, 2], [0, 0, 0], [1, 0, 2], [0, 0, 0], [0, 2, 2]]
    assert_as_each_episode(make(script, kind, making=like_on_a_gpu, engine="eager", **STILL))
    algorithm = make(script, kind, making=record, engine="eager", **STILL)
    assert_as_each_episode(algorithm, updates=5)
    assert StandIn.replays > 0
    assert algorithm.engine == "graph"


@settings(max_examples=25)
@given(data=st.data())
def test_any_pattern(data):
    torch.set_default_dtype(torch.float64)
    try:
        horizon, num_envs = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 4))
        row = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=num_envs, max_size=num_envs)
        script = data.draw(st.lists(row, min_size=horizon, max_size=3 * horizon))
        kind = data.draw(st.sampled_from(KINDS))
        resets = data.draw(st.sampled_from([1, 3, -1]))
        assert_as_each_episode(
            make(script, kind, horizon=horizon, horizons_per_env_reset=resets, **STILL), resets=resets
        )
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["lstm", "two lstms"])
@pytest.mark.usefixtures("float64")
def test_written_out_gradients_stop_at_endings_as_autograds_do(kind):
    left = []
    for engine in ("eager", "auto"):
        algorithm = make(PATTERNS["consecutive"], kind, engine=engine, entropy_coeff=0.01)
        for _ in range(3):
            algorithm.collect()
            algorithm.step()
        left.append(parameters(algorithm))
    torch.testing.assert_close(*left)


class NextStep(Scripted):
    """The row after an ending takes the action in vain and is put back, as in Gymnasium's NEXT_STEP."""

    script = PATTERNS["two in one"] + PATTERNS["none"]
    keys = ("terminated", "truncated", "final_obs", "valid")
    garbage = 0.0

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.over = torch.zeros(num_envs, 1, dtype=torch.bool)

    def step(self, action):
        valid = ~self.over
        said = TensorDict({"valid": valid}, self.num_envs)
        inner = super().step(action)
        ended = (inner["terminated"] | inner["truncated"]) & valid
        for key in ("terminated", "truncated"):
            said[key] = inner[key] & valid
        # Inner episodes have begun anew already: the old one's last observation is shown for one more step.
        said["obs"] = torch.where(ended, self.garbage, inner["obs"])
        said["final_obs"] = torch.where(ended, inner["final_obs"], torch.nan)
        said["rewards"] = torch.where(valid, inner["rewards"], self.garbage)
        self.over = ended
        return said


@pytest.mark.parametrize("kind", ["feedforward", "lstm", "gru"])
@pytest.mark.parametrize("engine", ["eager", "auto"])
@pytest.mark.usefixtures("float64")
def test_rows_that_are_not_valid_count_for_nothing(kind, engine):
    left = []
    for garbage in (0.0, 3.0):
        algorithm = make(
            NextStep.script,
            kind,
            env_cls=type("Env", (NextStep,), {"garbage": garbage}),
            engine=engine,
            entropy_coeff=0.01,
            normalize_advantages=True,
            normalize_observations=True,
            horizons_per_env_reset=-1,
        )
        stats = {}
        for _ in range(3):
            stats |= algorithm.collect() | algorithm.step()
        stats = {name: value for name, value in stats.items() if not name.startswith("profiling")}
        # The last observation of a horizon may be of a row that won't count.
        del stats["monitors/bootstrap_gap"]
        left.append((parameters(algorithm), stats))
    torch.testing.assert_close(left[0][0], left[1][0], rtol=0, atol=0)
    assert left[0][1] == left[1][1]
    assert left[0][1]["episodes/count"] == 4


@pytest.mark.parametrize("kind", ["feedforward", "lstm"])
@pytest.mark.usefixtures("float64")
def test_engines_agree_on_which_rows_count(kind):
    env_cls = type("Env", (NextStep,), {})
    left = []
    for engine, options in (("eager", {}), ("auto", {}), ("eager", {"grad_block_size": 5})):
        algorithm = make(NextStep.script, kind, env_cls=env_cls, engine=engine, entropy_coeff=0.05, **options)
        for _ in range(3):
            stats = algorithm.collect() | algorithm.step()
        left.append((parameters(algorithm), stats["losses/total"], stats["losses/entropy"]))
    torch.testing.assert_close(left[1], left[0])
    torch.testing.assert_close(left[2], left[0])


def test_means_of_losses_are_over_the_rows_that_count():
    columns = {name: torch.randn(6, 1) for name in ("logp", "old_logp", "advantages", "values")}
    columns |= {name: torch.randn(6, 1) for name in ("old_values", "returns", "entropy")}
    how = {"clip_param": 0.2, "vf_clip_param": 0.5, "dual_clip_param": None}
    how |= {"vf_coeff": 0.7, "entropy_coeff": 0.1}
    some = torch.tensor([True, False, True, True, False, False])
    weights = 2 * some.to(torch.float32).unsqueeze(-1)
    all_rows = ppo_loss(**columns, **how, weights=weights)
    alone = ppo_loss(**{name: rows[some] for name, rows in columns.items()}, **how)
    torch.testing.assert_close(all_rows, alone)


def test_keys_of_endings_where_none_ends_change_nothing():
    left = []
    for keys in ((), Scripted.keys):
        for kind in ("feedforward", "lstm"):
            algorithm = make(PATTERNS["none"], kind, keys=keys)
            for _ in range(3):
                algorithm.collect()
                algorithm.step()
            left.append(parameters(algorithm))
    assert torch.equal(left[0], left[2])
    assert torch.equal(left[1], left[3])


def test_without_final_observations_the_last_one_counts_and_that_is_said_once(caplog):
    algorithm = make([[0, 2], [2, 0], [0, 0]], keys=("truncated",))
    algorithm.collect()
    algorithm.collect()
    assert caplog.text.count("truncated without final_obs") == 1
    endings, values = algorithm.collector.buffer.endings, algorithm.collector.buffer.values
    expected = torch.zeros(3, 2)
    expected[0, 1], expected[1, 0] = values[0, 1], values[1, 0]
    # A product rounds as its number of rows says.
    assert torch.allclose(endings.values.squeeze(-1), expected, rtol=1e-6)
