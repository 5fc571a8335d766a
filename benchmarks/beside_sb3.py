"""Time per transition beside Stable-Baselines3's PPO: the same tasks, sizes and normalization.

    python benchmarks/beside_sb3.py [--transitions 100000] [--tasks gym:HalfCheetah-v5 cheetah-run] [--write]

Needs `stable-baselines3`, and what the tasks need (docs/simulators.md). Both train on one thread in one
process, an update of one after an update of the other, so that a machine in use by others slows both. SB3
steps Gymnasium's environments as it usually does, in a DummyVecEnv; `cheetah-run` it is given as rlstack has
it, MuJoCo's batched simulation. The first update of each is not counted.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

import report
from rlstack import Algorithm
from rlstack.cli.resolve_env import resolve


class Batched(VecEnv):
    """An environment of rlstack's, whose episodes are broken off alike, as SB3 takes it."""

    def __init__(self, env: Any) -> None:
        self.env, self.num_envs = env, env.num_envs
        boxes = [
            gymnasium.spaces.Box(-bound, bound, tuple(spec.shape), np.float32)
            for spec, bound in ((env.observation_spec, np.inf), (env.action_spec, 1.0))
        ]
        super().__init__(env.num_envs, *boxes)

    def reset(self) -> np.ndarray:
        return self.env.reset().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.from_numpy(actions)

    def step_wait(self) -> Any:
        out = self.env.step(self._actions)
        dones = out["truncated"].squeeze(-1).numpy()
        infos: list[dict[str, Any]] = [{} for _ in dones]
        for n in dones.nonzero()[0]:
            infos[n] = {"TimeLimit.truncated": True, "terminal_observation": out["final_obs"][n].numpy()}
        return out["obs"].numpy(), out["rewards"].squeeze(-1).numpy(), dones, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        pass

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def ours(name: str) -> tuple[Algorithm, Callable[[], None]]:
    """Return an algorithm, and what makes an update."""
    env_cls, hyperparameters = resolve(name, {"seed": 0, "device": "cpu"})
    algorithm = Algorithm(env_cls, **hyperparameters)

    def update() -> None:
        algorithm.collect()
        algorithm.step()

    return algorithm, update


def theirs(name: str, algorithm: Algorithm) -> Callable[[], None]:
    """Return what makes an update of SB3's PPO with the same sizes."""
    hp = algorithm.hparams
    assert hp.model_config is not None
    assert hp.optimizer_config is not None
    if name.startswith("gym:"):
        env: VecEnv = DummyVecEnv([lambda: gymnasium.make(name.partition(":")[2])] * hp.num_envs)
    else:
        env = Batched(resolve(name, {})[0](hp.num_envs))
    hiddens = list(hp.model_config["hiddens"])
    activation = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}[hp.model_config.get("activation_fn", "relu")]
    agent = PPO(
        "MlpPolicy",
        VecNormalize(env, gamma=hp.gamma),
        learning_rate=hp.optimizer_config["lr"],
        n_steps=hp.horizon,
        batch_size=hp.sgd_minibatch_size,
        n_epochs=hp.num_sgd_iters,
        gamma=hp.gamma,
        gae_lambda=hp.gae_lambda,
        clip_range=hp.clip_param,
        vf_coef=hp.vf_coeff,
        max_grad_norm=hp.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": hiddens, "vf": hiddens},
            "activation_fn": activation,
            "log_std_init": hp.model_config["log_std_init"],
        },
        seed=0,
        device="cpu",
    )
    return lambda: agent.learn(hp.num_envs * hp.horizon, reset_num_timesteps=False)


def measured(name: str, transitions: int) -> str:
    """Return a row of the table."""
    algorithm, update = ours(name)
    updates = update, theirs(name, algorithm)
    size = algorithm.hparams.num_envs * algorithm.hparams.horizon
    count = -(-transitions // size)
    wall, busy = np.zeros(2), np.zeros(2)
    for number in range(count + 1):
        for which, make in enumerate(updates):
            start = time.perf_counter(), time.process_time()
            make()
            if number > 0:
                wall[which] += time.perf_counter() - start[0]
                busy[which] += time.process_time() - start[1]
    pairs = (1e6 * each / (count * size) for each in (wall, busy))
    cells = [f"{we:.0f} | {they:.0f} | {we / they:.2f}" for we, they in pairs]
    return f"| {name} | {count * size:,} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--transitions", type=int, default=100_000)
    parser.add_argument("--tasks", nargs="+", default=["gym:HalfCheetah-v5", "cheetah-run"])
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    head = (
        "task | transitions of each | rlstack, µs | SB3, µs | ratio | rlstack, CPU µs | SB3, CPU µs | ratio"
    )
    lines = [f"| {head} |", "|---" * 8 + "|"]
    for name in args.tasks:
        lines.append(measured(name, args.transitions))
        print(*lines, sep="\n", flush=True)
    if args.write:
        command = f"python benchmarks/beside_sb3.py --transitions {args.transitions} --write"
        note = "Time per transition, collecting and updating, one thread; updates of the two alternate."
        packages = "stable-baselines3", "gymnasium", "mujoco"
        report.write("beside-sb3", "Beside Stable-Baselines3", command, note, lines, *packages)


if __name__ == "__main__":
    main()
