"""The way CleanRL writes PPO: one file, one loop, nothing hidden; written afresh for these environments."""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from common import Clock, Simulation, Work, main


def layer(before: int, after: int, gain: float = 2**0.5) -> nn.Linear:
    linear = nn.Linear(before, after)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.constant_(linear.bias, 0.0)
    return linear


class Agent(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work
        activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[work.activation]

        def network(outputs: int, gain: float) -> nn.Sequential:
            sizes = [work.obs_size, *work.hiddens]
            layers: list[nn.Module] = []
            for before, after in pairwise(sizes):
                layers += [layer(before, after), activation()]
            return nn.Sequential(*layers, layer(sizes[-1], outputs, gain))

        self.actor, self.critic = network(work.num_actions, 0.01), network(1, 1.0)
        self.log_std = nn.Parameter(torch.zeros(1, work.num_actions))

    def rate(self, obs: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        output = self.actor(obs)
        if self.work.is_continuous:
            normal = Normal(output, self.log_std.expand_as(output).exp())
            action = normal.sample() if action is None else action
            return action, normal.log_prob(action).sum(1), normal.entropy().sum(1), self.critic(obs)
        choice = Categorical(logits=output)
        action = choice.sample() if action is None else action
        return action, choice.log_prob(action), choice.entropy(), self.critic(obs)


class LSTMAgent(nn.Module):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.lstm = nn.LSTM(work.obs_size, 256)
        self.actor, self.critic = layer(256, work.num_actions, 0.01), layer(256, 1, 1.0)

    def rate(
        self, obs: Tensor, state: tuple[Tensor, Tensor], action: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Rate steps [L, N, size]; results are flattened to [L · N]."""
        hidden, state = self.lstm(obs, state)
        hidden = hidden.flatten(0, 1)
        choice = Categorical(logits=self.actor(hidden))
        action = choice.sample() if action is None else action
        return action, choice.log_prob(action), choice.entropy(), self.critic(hidden), state


def loss_of(logp: Tensor, entropy: Tensor, values: Tensor, batch: dict[str, Tensor], index: Any) -> Tensor:
    log_ratio = logp - batch["logp"][index]
    ratio = log_ratio.exp()
    with torch.no_grad():
        (-log_ratio).mean()
        ((ratio - 1) - log_ratio).mean()
        outside = ((ratio - 1.0).abs() > 0.2).float().mean()
        if not torch.compiler.is_compiling():
            outside.item()
    advantages = batch["advantages"][index]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    policy = torch.max(-advantages * ratio, -advantages * torch.clamp(ratio, 0.8, 1.2)).mean()
    values, returns, old = values.view(-1), batch["returns"][index], batch["values"][index]
    clipped = old + torch.clamp(values - old, -5.0, 5.0)
    vf = 0.5 * torch.max((values - returns) ** 2, (clipped - returns) ** 2).mean()
    return policy - 0.0 * entropy.mean() + vf


def gae(rewards: Tensor, values: Tensor, last: Tensor) -> Tensor:
    advantages = torch.zeros_like(rewards)
    running: Any = 0.0
    steps = len(rewards)
    for t in reversed(range(steps)):
        following = last if t == steps - 1 else values[t + 1]
        delta = rewards[t] + 0.95 * following - values[t]
        advantages[t] = running = delta + 0.95 * 0.95 * running
    return advantages


def play(work: Work, clock: Clock, *, compiled: bool = False) -> None:
    """Play; `compiled` puts what LeanRL compiles through torch.compile: acting, advantages, the update."""
    chance = np.random.default_rng(0)
    agent: Any = (LSTMAgent if work.recurrent else Agent)(work)
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    simulation = Simulation(work)

    def learn(obs: Tensor, actions: Tensor, batch: dict[str, Tensor], index: Any, state: Any = None) -> None:
        memory = () if state is None else (state,)
        _, logp, entropy, value, *_ = agent.rate(obs, *memory, actions)
        loss = loss_of(logp, entropy, value, batch, index)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(agent.parameters(), 5.0)
        optimizer.step()

    act, estimate = agent.rate, gae
    if compiled:
        act, estimate, learn = (torch.compile(part) for part in (agent.rate, gae, learn))
    steps, num = work.horizon, work.num_envs
    action_shape = (work.num_actions,) if work.is_continuous else ()
    action_dtype = torch.float32 if work.is_continuous else torch.int64
    obs = torch.zeros(steps, num, work.obs_size)
    actions = torch.zeros(steps, num, *action_shape, dtype=action_dtype)
    logps, rewards, values = (torch.zeros(steps, num) for _ in range(3))
    length = 4
    states = [torch.zeros(steps // length, num, 256) for _ in range(2)] if work.recurrent else []
    clock.start()
    while True:
        current = simulation.reset()
        state = (torch.zeros(1, num, 256), torch.zeros(1, num, 256))
        for t in range(steps):
            obs[t] = current
            with torch.no_grad():
                if work.recurrent:
                    if t % length == 0:
                        for store, part in zip(states, state, strict=True):
                            store[t // length] = part[0]
                    action, logp, _, value, state = act(current.unsqueeze(0), state)
                else:
                    action, logp, _, value = act(current)
            actions[t], logps[t], values[t] = action, logp, value.flatten()
            current, reward = simulation.step(action.view(num, -1))
            rewards[t] = reward.flatten()
        with torch.no_grad():
            if work.recurrent:
                last = agent.rate(current.unsqueeze(0), state)[3].flatten()
            else:
                last = agent.critic(current).flatten()
            advantages = estimate(rewards, values, last)
            returns = advantages + values
        clock.collected()
        batch = {"logp": logps, "advantages": advantages, "returns": returns, "values": values}
        flat = {name: value.reshape(-1) for name, value in batch.items()}
        flat_obs, flat_actions = obs.reshape(-1, work.obs_size), actions.reshape(-1, *action_shape)
        for _ in range(work.epochs):
            if work.recurrent:
                order = chance.permutation(num * steps // length)
                size = work.minibatch // length
            else:
                order, size = chance.permutation(work.transitions), work.minibatch
            for start in range(0, len(order), size):
                index: Any = torch.from_numpy(order[start : start + size])
                if work.recurrent:
                    first, env = index // num, index % num
                    rows = (first * length) * num + env + num * torch.arange(length).view(-1, 1)
                    before = tuple(store[first, env].unsqueeze(0) for store in states)
                    index = rows.reshape(-1)
                    learn(flat_obs[rows], flat_actions[index], flat, index, before)
                else:
                    learn(flat_obs[index], flat_actions[index], flat, index)
        if clock.ended():
            return


if __name__ == "__main__":
    main(play)
