"""A task that outlasts a horizon: how often to reset its simulations.

    python examples/quadrotor.py [UPDATES]

A quadrotor is to fly to the origin and hover there. Reset after every horizon of 32 steps, its values are
never trained on what comes later, and its policy ends up there; reset after every 8 horizons, it hovers.
"""

import logging
import sys
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torch.nn.functional import normalize

from rlstack import Algorithm
from rlstack.common.random_state import keep_random_state
from rlstack.common.types import Stats
from rlstack.env import Env
from rlstack.specs import Bounded, Unbounded

GRAVITY, STEP, DRAG = 9.81, 0.04, 0.2
"""m/s², s, 1/s."""
SHOWN = ("losses/vf", "monitors/bootstrap_gap", "monitors/explained_variance", "rewards/mean")
MIXER = torch.tensor([[8.0, 8.0, -8.0, -8.0], [-8.0, 8.0, 8.0, -8.0], [2.0, -2.0, 2.0, -2.0]])
"""[3, 4]. Angular acceleration around each axis by each rotor, rad/s² per quarter of the weight."""
OPTIONS: dict[str, Any] = {
    "gamma": 0.98,
    "num_envs": 512,
    "horizons_per_env_reset": 8,
    "sgd_minibatch_size": 4096,
    "model_config": {"hiddens": [64, 64]},
}
"""With γ = 0.98 the values look some 50 steps ahead, beyond the end of a horizon."""


class Quadrotor(Env):
    """Rigid bodies with four rotors; the reward is 1 at rest at the origin, and less far away or spinning."""

    def __init__(self, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = Unbounded((18,))
        self.action_spec = Bounded(0.0, 2.0, (4,))
        self.mixer = MIXER.to(self.device)
        self.gravity = torch.tensor([0.0, 0.0, GRAVITY], device=self.device)

    def reset(self, *, config: Any = None) -> Tensor:
        """Put them anywhere within 1 m on each axis, upright and slow."""
        noise = 2 * torch.rand(3, self.num_envs, 3, device=self.device) - 1
        self.position, self.velocity, self.spin = noise[0], 0.5 * noise[1], 0.5 * noise[2]
        self.rotation = torch.eye(3, device=self.device).repeat(self.num_envs, 1, 1)
        return self._obs()

    def step(self, action: Tensor) -> TensorDict:
        """Let the rotors push with [B, 4] for 0.04 s, each with up to 2 quarters of the weight."""
        lift = GRAVITY * action.mean(1, keepdim=True) * self.rotation[:, :, 2]
        self.velocity = self.velocity + STEP * (lift - self.gravity - DRAG * self.velocity)
        self.position = self.position + STEP * self.velocity
        self.spin = self.spin + STEP * (action @ self.mixer.T - self.spin)
        # The body's axes turn with it; made orthonormal again, they stay a rotation.
        x, y, _ = (self.rotation + STEP * self.rotation @ _cross_matrix(self.spin)).unbind(2)
        x = normalize(x)
        y = normalize(y - (x * y).sum(1, keepdim=True) * x)
        self.rotation = torch.stack([x, y, torch.linalg.cross(x, y)], 2)
        distance, spin = (vector.norm(dim=1, keepdim=True) for vector in (self.position, self.spin))
        rewards = 1 / (1 + distance + 0.1 * spin)
        return TensorDict({"obs": self._obs(), "rewards": rewards}, batch_size=self.num_envs)

    def state_dict(self) -> dict[str, Any]:
        """Return all that moves, and what classes derived from this one add."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value.to(self.device, copy=True))

    def _obs(self) -> Tensor:
        return torch.cat([self.position, self.velocity, self.spin, self.rotation.flatten(1)], 1)


def _cross_matrix(vectors: Tensor) -> Tensor:
    """Return the matrices [B, 3, 3] that multiply by a vector what the cross product does with [B, 3]."""
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).unflatten(1, (3, 3))


def train(resets: int, updates: int, *, seed: int = 0, **changes: Any) -> tuple[Algorithm, Stats]:
    """Return an algorithm trained with a reset before every so many horizons, and its last statistics."""
    changes = {**OPTIONS, "horizons_per_env_reset": resets, "seed": seed, **changes}
    algorithm = Algorithm(Quadrotor, **changes)
    stats: Stats = {}
    for update in range(updates):
        stats = {**algorithm.collect(), **algorithm.step()}
        if update % 50 == 0 or update == updates - 1:
            said = ", ".join(f"{name} {stats[name]:.3g}" for name in SHOWN)
            print(f"  update {update:3}: {said}", flush=True)
    return algorithm, stats


def judge(algorithm: Algorithm, steps: int) -> float:
    """Return the mean reward over so many steps of 64 fresh simulations, acting without chance."""
    with keep_random_state(algorithm.device):
        torch.manual_seed(0)
        env = Quadrotor(64, device=algorithm.device)
        obs, total = env.reset(), 0.0
        for _ in range(steps):
            out = env.step(algorithm.policy.act(obs, deterministic=True).actions)
            obs, total = out["obs"], total + out["rewards"].mean().item()
    return total / steps


def main(updates: int = 150, **changes: Any) -> dict[int, tuple[float, float]]:
    """Return the mean rewards over 32 and over 300 steps by horizons between resets."""
    results = {}
    for resets in (1, 8):
        print(f"horizons_per_env_reset={resets}")
        algorithm, _ = train(resets, updates, **changes)
        results[resets] = judge(algorithm, 32), judge(algorithm, 300)
        print("  mean reward over 32 steps {:.2f}, over 300 steps {:.2f}".format(*results[resets]))
    return results


if __name__ == "__main__":
    logging.basicConfig(format="  warning: %(message)s")
    main(*map(int, sys.argv[1:2]))
