"""Environments and models that several tests share."""

import torch
from tensordict import TensorDict

from rlstack import specs
from rlstack.cli.recipes import RECIPES
from rlstack.env import Env
from rlstack.models import DiscreteMLP, Model, RecurrentModel

OWN_RECIPES = [name for name, recipe in RECIPES.items() if recipe.module == "rlstack.env"]
"""Names that need no other package."""

SMALL = {"hiddens": [16]}


class Stateless(RecurrentModel):
    """The default feedforward model, as a recurrent one with nothing to remember."""

    def __init__(self, observation_spec, action_spec, /, **config):
        super().__init__(observation_spec, action_spec, **config)
        self.inner = DiscreteMLP(observation_spec, action_spec, **config)
        self.state_spec = specs.Composite()

    def forward(self, obs, state):
        features, values = self.inner(obs.flatten(0, 1))
        return features.unflatten(0, obs.shape[:2]), values.unflatten(0, obs.shape[:2]), state


class CompositeEnv(Env):
    """Nested observations and nested actions; reward for doing as `goal` says."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Composite(
            goal=specs.Categorical(2, shape=(1,)),
            body=specs.Composite(position=specs.Unbounded((2,)), flags=specs.Binary(3)),
        )
        self.action_spec = specs.Composite(push=specs.Unbounded((1,)), which=specs.Categorical(2, shape=(1,)))

    def reset(self, *, config=None):
        return self._obs()

    def step(self, action):
        rewards = (action["which"] == self.goal).float() - action["push"] ** 2
        return TensorDict({"obs": self._obs(), "rewards": rewards}, self.num_envs)

    def _obs(self):
        num = self.num_envs
        self.goal = torch.randint(2, (num, 1))
        body = {"position": torch.randn(num, 2), "flags": torch.randint(2, (num, 3), dtype=torch.int8)}
        return TensorDict({"goal": self.goal, "body": body}, num)


class CompositeModel(Model):
    """Features for both parts of CompositeEnv's actions."""

    def __init__(self, observation_spec, action_spec, /, size=8):
        super().__init__(observation_spec, action_spec, size=size)
        from rlstack.models.encoder import ObservationEncoder

        self.encoder = ObservationEncoder(observation_spec)
        self.net = torch.nn.Linear(self.encoder.size, 4)

    def forward(self, obs):
        mean, logits, values = self.net(self.encoder(obs)).split([1, 2, 1], -1)
        features = {"push": {"mean": mean, "log_std": torch.zeros_like(mean)}, "which": {"logits": logits}}
        return TensorDict(features, len(values)), values


class Part:
    """What a part's distribution asks of a model."""

    def __init__(self, action_spec):
        self.action_spec = action_spec


def composite_distribution():
    from rlstack.distributions import Categorical, Distribution, Normal

    class CompositeDistribution(Distribution):
        """A normal push and a discrete choice, independent of each other."""

        def __init__(self, features, model, /):
            super().__init__(features, model)
            which = features["which"].apply(lambda x: x.unsqueeze(1))
            spec = model.action_spec
            self.parts = {
                "push": Normal(features["push"], Part(spec["push"])),
                "which": Categorical(which, Part(spec["which"])),
            }

        def _all(self, method):
            return TensorDict(
                {key: getattr(part, method)() for key, part in self.parts.items()}, len(self.features)
            )

        def sample(self):
            return self._all("sample")

        def deterministic_sample(self):
            return self._all("deterministic_sample")

        def logp(self, samples):
            return sum(part.logp(samples[key]) for key, part in self.parts.items())

        def entropy(self):
            return sum(part.entropy() for part in self.parts.values())

    return CompositeDistribution


def parameters(algorithm):
    """All of a policy's parameters in one vector, detached."""
    return torch.cat([p.detach().flatten() for p in algorithm.policy.parameters()]).clone()


def update(algorithm, times=1):
    """Collect and step; return the statistics of the last update."""
    for _ in range(times):
        stats = algorithm.collect()
        stats |= algorithm.step()
    return stats


class Counting(Env):
    """Observations count the steps of an episode, which has three steps and more in later rows."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = specs.Unbounded((1,))
        self.action_spec = specs.Categorical(2, shape=(1,))
        self.age = torch.zeros(num_envs, 1)
        self.lengths = 3 + torch.arange(num_envs).unsqueeze(-1) % 4

    def reset(self, *, config=None):
        self.age = torch.zeros(self.num_envs, 1)
        return self.age

    def step(self, action):
        self.age = self.age + 1
        final_obs, ended = self.age, self.age >= self.lengths
        self.age = self.put_back(ended)
        odd = torch.arange(self.num_envs).unsqueeze(-1) % 2 == 1
        out = {"terminated": ended & odd, "truncated": ended & ~odd, "final_obs": final_obs}
        out |= {"obs": self.age, "rewards": torch.ones(self.num_envs, 1)}
        return TensorDict(self.said(out), self.num_envs)

    def put_back(self, ended):
        return torch.where(ended, 0.0, self.age)

    def said(self, out):
        return out


SEEN, SECRET = ["place", "inner.turn"], ["inner.mass", "wind"]
"""Keys of Veiled that the policy sees, and those that it doesn't."""


class Veiled(Env):
    """Nested observations, not all of them there where a policy is used; reward for going with the wind."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        dtype = torch.get_default_dtype()
        self.observation_spec = specs.Composite(
            place=specs.Unbounded((2,), dtype=dtype),
            inner=specs.Composite(
                mass=specs.Unbounded((1,), dtype=dtype), turn=specs.Categorical(3, shape=(1,))
            ),
            wind=specs.Unbounded((2,), dtype=dtype),
        )
        self.action_spec = specs.Unbounded((2,), dtype=dtype)

    def state_dict(self):
        return {"place": self.place, "mass": self.mass, "wind": self.wind}

    def load_state_dict(self, state):
        self.place, self.mass, self.wind = (state[name] for name in ("place", "mass", "wind"))

    def reset(self, *, config=None):
        self.place = torch.zeros(self.num_envs, 2)
        self.mass = 1 + torch.rand(self.num_envs, 1)
        return self._obs()

    def step(self, action):
        rewards = (self.wind * action).mean(-1, keepdim=True) / self.mass
        self.place = self.place + 0.1 * action
        return TensorDict({"obs": self._obs(), "rewards": rewards}, self.num_envs)

    def _obs(self):
        num = self.num_envs
        self.wind = torch.randn(num, 2)
        inner = {"mass": self.mass, "turn": torch.randint(3, (num, 1))}
        return TensorDict({"place": self.place, "inner": inner, "wind": self.wind}, num)


def without_numba(monkeypatch):
    """Compute by operations of torch, as where there is no machine code."""
    from rlstack.engine.kernels import acting, steps

    for module in (acting, steps):
        monkeypatch.setattr(module, "machine_code", lambda rows, parameters: None)
