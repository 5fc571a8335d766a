"""TorchRL, put together as its own PPO examples are."""

from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Categorical, Composite, LazyTensorStorage, TensorDictReplayBuffer, Unbounded
from torchrl.data.replay_buffers.samplers import SamplerWithoutReplacement
from torchrl.envs import EnvBase
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from common import Clock, Simulation, Work, main


class Envs(EnvBase):  # type: ignore[misc]
    def __init__(self, work: Work) -> None:
        super().__init__(device="cpu", batch_size=torch.Size([work.num_envs]))
        self.simulation, num = Simulation(work), work.num_envs
        self.observation_spec = Composite(observation=Unbounded((num, work.obs_size)), shape=self.batch_size)
        self.action_spec = Unbounded((num, 1)) if work.env == "continuous" else Categorical(2, shape=(num,))
        self.reward_spec = Unbounded((num, 1))
        self._none = torch.zeros(num, 1, dtype=torch.bool)

    def _reset(self, tensordict: Any = None, **kwargs: Any) -> TensorDict:
        obs = self.simulation.reset()
        return TensorDict(
            {"observation": obs, "done": self._none.clone(), "terminated": self._none.clone()},
            self.batch_size,
        )

    def _step(self, tensordict: TensorDict) -> TensorDict:
        obs, rewards = self.simulation.step(tensordict["action"].view(-1, 1))
        return TensorDict(
            {
                "observation": obs,
                "reward": rewards,
                "done": self._none.clone(),
                "terminated": self._none.clone(),
            },
            self.batch_size,
        )

    def _set_seed(self, seed: int | None) -> None:
        torch.manual_seed(seed or 0)


def play(work: Work, clock: Clock) -> None:
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[work.activation]
    common = {"in_features": work.obs_size, "num_cells": list(work.hiddens), "activation_class": activation}
    continuous = work.env == "continuous"
    body: nn.Module = MLP(out_features=2, **common)
    keys = ["logits"]
    if continuous:
        body, keys = nn.Sequential(body, NormalParamExtractor()), ["loc", "scale"]
    env = Envs(work)
    actor = ProbabilisticActor(
        TensorDictModule(body, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        spec=env.action_spec,
        distribution_class=torch.distributions.Normal if continuous else torch.distributions.Categorical,
        return_log_prob=True,
    )
    if continuous:
        actor = ProbabilisticActor(
            TensorDictModule(body, in_keys=["observation"], out_keys=keys),
            in_keys=keys,
            spec=env.action_spec,
            distribution_class=_Independent,
            return_log_prob=True,
        )
    critic = ValueOperator(MLP(out_features=1, **common), in_keys=["observation"])
    collector = Collector(
        env,
        actor,
        frames_per_batch=work.transitions,
        total_frames=work.transitions * (work.warm_up + work.iterations),
        device="cpu",
    )
    advantage = GAE(gamma=0.95, lmbda=0.95, value_network=critic, average_gae=True)
    loss = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=0.2,
        entropy_bonus=True,
        entropy_coeff=0.0,
        critic_coeff=1.0,
        loss_critic_type="l2",
        clip_value=5.0,
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    memory = TensorDictReplayBuffer(
        storage=LazyTensorStorage(work.transitions),
        sampler=SamplerWithoutReplacement(),
        batch_size=work.minibatch,
    )
    clock.start()
    for data in collector:
        with torch.no_grad():
            advantage(data)
        clock.collected()
        memory.empty()
        memory.extend(data.reshape(-1))
        for _ in range(work.epochs):
            for _ in range(work.transitions // work.minibatch):
                losses = loss(memory.sample())
                total = losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]
                total.backward()
                nn.utils.clip_grad_norm_(loss.parameters(), 5.0)
                optimizer.step()
                optimizer.zero_grad()
        if clock.ended():
            break


def _Independent(loc: Any, scale: Any) -> Any:  # noqa: N802 (stands for a class)
    return torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)


if __name__ == "__main__":
    main(play)
