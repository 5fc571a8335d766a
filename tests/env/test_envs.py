"""The built-in environments against Gymnasium's, and the checks at the border."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict import TensorDict

from rlstack import specs
from rlstack.env import CartPole, ContinuousDummyEnv, DiscreteDummyEnv, Env, EnvError, MountainCar, Pendulum
from rlstack.env.base import checked_reset, checked_step, make_env

ALL = [DiscreteDummyEnv, ContinuousDummyEnv, CartPole, MountainCar, Pendulum]
CLASSIC = [(CartPole, "CartPole-v1"), (MountainCar, "MountainCar-v0"), (Pendulum, "Pendulum-v1")]


def gym_states(name, rng, num):
    """States all over the place where the original goes on: it ends CartPole and MountainCar at bounds."""
    match name:
        case "CartPole-v1":
            return rng.uniform([-2.2, -2, -0.18, -2], [2.2, 2, 0.18, 2], (num, 4))
        case "MountainCar-v0":
            return rng.uniform([-1.2, -0.07], [0.6, 0.07], (num, 2))
        case "Pendulum-v1":
            return rng.uniform([-7, -8], [7, 8], (num, 2))


def gym_step(original, state, action):
    original.unwrapped.state = np.array(state)
    if name_of(original) == "CartPole-v1":
        original.unwrapped.steps_beyond_terminated = None
    obs, reward, *_ = original.unwrapped.step(action)
    return obs, reward, np.array(original.unwrapped.state)


def name_of(original):
    return original.spec.id


def gym_action(action, name):
    return action.numpy().astype(np.float64) if name == "Pendulum-v1" else int(action)


def random_actions(env, rng, num):
    if isinstance(env, Pendulum):
        return torch.tensor(rng.uniform(-2.5, 2.5, (num, 1)), dtype=torch.get_default_dtype())
    return torch.tensor(rng.integers(env.action_spec.space.n, size=(num, 1)))


@pytest.mark.parametrize(("cls", "name"), CLASSIC)
def test_one_step_is_gymnasiums_in_float32(cls, name):
    rng, num = np.random.default_rng(0), 300
    original = gym.make(name)
    original.reset(seed=0)
    env = cls(num)
    states, actions = gym_states(name, rng, num), random_actions(env, rng, num)
    env.state = torch.tensor(states, dtype=torch.float32)
    out = env.step(actions)
    for i in range(num):
        obs, reward, state = gym_step(original, states[i], gym_action(actions[i], name))
        np.testing.assert_allclose(env.state[i], state, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(out["obs"][i], obs, rtol=1e-5, atol=1e-5)
        if name == "Pendulum-v1":
            np.testing.assert_allclose(out["rewards"][i], reward, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cls", "name"), CLASSIC)
def test_200_random_steps_are_gymnasiums_in_float64(cls, name, float64):
    rng, num = np.random.default_rng(1), 8
    env = cls(num)
    env.reset()
    states = env.state.numpy().copy()
    originals = [gym.make(name) for _ in range(num)]
    for original in originals:
        original.reset(seed=0)
    for _ in range(200):
        actions = random_actions(env, rng, num)
        env.step(actions)
        for i, original in enumerate(originals):
            _, _, states[i] = gym_step(original, states[i], gym_action(actions[i], name))
        np.testing.assert_allclose(env.state.numpy(), states, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("cls", "name"), CLASSIC)
def test_constants_are_gymnasiums(cls, name):
    original, config = gym.make(name).unwrapped, cls(1).config
    same = (
        "tau",
        "gravity",
        "masscart",
        "masspole",
        "length",
        "force_mag",
        "x_threshold",
        "force",
        "max_speed",
    )
    same += ("min_position", "max_position", "g", "m", "l", "dt", "max_torque")
    names = {name: name for name in same} | {"theta_threshold": "theta_threshold_radians"}
    shared = names.keys() & config.keys()
    assert len(shared) >= 5
    assert {key: config[key] for key in shared} == {key: getattr(original, names[key]) for key in shared}


@pytest.mark.parametrize("cls", ALL)
class TestBuiltIn:
    def test_keeps_the_contract(self, cls):
        env = make_env(cls, 16, None, torch.device("cpu"))
        checked_reset(env, 16, None, torch.device("cpu"))
        for step in range(5):
            action = env.action_spec.expand(16, *env.action_spec.shape).rand()
            obs, rewards, _ = checked_step(env, 16, action, step, torch.device("cpu"))
        assert obs.isfinite().all()
        assert rewards.isfinite().all()

    def test_follows_torchs_seed(self, cls):
        def play():
            torch.manual_seed(3)
            env = cls(4)
            return torch.cat(
                [env.reset(), env.step(torch.ones(4, 1, dtype=env.action_spec.dtype))["obs"]]
            ).clone()

        assert torch.equal(play(), play())

    def test_unknown_options_are_named(self, cls):
        with pytest.raises(EnvError, match=f"env_config.bound_ is not an option of {cls.__name__}"):
            cls(2, config={"bound_": 1})
        with pytest.raises(EnvError, match="expected a number"):
            cls(2, config={next(iter(cls(1).config)): "wide"})

    def test_reset_options_stay(self, cls):
        env = cls(64)
        option = "bounds" if "Dummy" in cls.__name__ else env.starts[0]
        env.reset(config={option: 0.0})
        assert len(env.reset().unique(dim=0)) <= (1 if option == "bounds" else 64)
        assert env.config[option] == 0.0


def test_dummies():
    env = DiscreteDummyEnv(3, config={"bounds": 5})
    start = env.reset().clone()
    assert (start.abs() <= 5).all()
    out = env.step(torch.tensor([[0], [1], [1]]))
    expected = start + torch.tensor([[-1.0], [1.0], [1.0]])
    assert torch.equal(out["obs"], expected)
    assert torch.equal(out["rewards"], -expected.abs())
    env = ContinuousDummyEnv(3)
    start = env.reset().clone()
    assert torch.equal(env.step(torch.full((3, 1), 0.25))["obs"], start + 0.25)


def test_cartpole_reward():
    env = CartPole(3, config={"tau": 0.0})
    env.state = torch.tensor([[0.0, 1, 0, 1], [1.2, 0, 0, 0], [9.0, 0, 9.0, 0]])
    assert env.step(torch.ones(3, 1, dtype=torch.int64))["rewards"].flatten().tolist() == pytest.approx(
        [1, 0.875, 0]
    )


def test_pendulums_torque_bounds_the_actions_for_good():
    env = Pendulum(2, config={"max_torque": 3.0})
    assert env.action_spec.space.high.item() == 3
    env.reset(config={"max_torque": 3.0, "g": 9.0})
    with pytest.raises(EnvError, match=r"max_torque is 3\.0 and can't be changed"):
        env.reset(config={"max_torque": 4.0})


def test_mountain_car_is_highest_at_the_flag():
    env = MountainCar(1000, config={"force": 0.0, "gravity": 0.0, "start_velocity": 0.0})
    obs = env.reset().clone()
    rewards = env.step(torch.ones(1000, 1, dtype=torch.int64))["rewards"]
    assert obs[rewards.argmax(), 0].item() == pytest.approx(np.pi / 6, abs=0.01)


class Broken(Env):
    """A one-number environment with one fault, by name."""

    def __init__(self, num_envs, /, *, config=None, device="cpu"):
        super().__init__(num_envs, config=config, device=device)
        self.fault = self.config.get("fault")
        if self.fault != "no spec":
            self.observation_spec = specs.Unbounded((1,))
        self.action_spec = (
            "two"
            if self.fault == "spec type"
            else specs.Categorical(2, shape=() if self.fault == "scalar spec" else (1,))
        )
        if self.fault == "max_horizon":
            self.max_horizon = 0

    def reset(self, *, config=None):
        if self.fault == "reset raises":
            raise RuntimeError("no simulator")
        return torch.zeros(self.num_envs) if self.fault == "reset shape" else torch.zeros(self.num_envs, 1)

    def step(self, action):
        obs, rewards = torch.zeros(self.num_envs, 1), torch.zeros(self.num_envs, 1)
        match self.fault:
            case "obs shape":
                obs = obs.squeeze(-1)
            case "obs dtype":
                obs = obs.double()
            case "obs numpy":
                obs = obs.numpy()
            case "obs batch":
                obs = obs[1:]
            case "rewards shape":
                rewards = rewards.squeeze(-1)
            case "rewards dtype":
                rewards = rewards.long()
            case "rewards type":
                rewards = 0.0
            case "raises":
                raise ZeroDivisionError("oops")
            case "tuple":
                return obs, rewards
            case "no rewards":
                return TensorDict({"obs": obs}, self.num_envs)
        return (
            TensorDict({"obs": obs, "rewards": rewards}, self.num_envs)
            if self.fault not in ("obs batch", "obs numpy", "rewards type")
            else {"obs": obs, "rewards": rewards}
        )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("no spec", "has no observation_spec: set self.observation_spec"),
        ("spec type", "Broken.action_spec is a str, expected a spec"),
        ("scalar spec", "use shape=\\(1,\\)"),
        ("max_horizon", "max_horizon is 0"),
        ("reset raises", "Broken.reset raised RuntimeError: no simulator"),
        ("reset shape", "Broken.reset: obs has shape \\[4\\], expected \\[4, 1\\]"),
        ("obs shape", "Broken.step \\(step 7 of the horizon\\): obs has shape \\[4\\]"),
        ("obs dtype", "obs has dtype torch.float64"),
        ("obs numpy", "obs is a numpy.ndarray"),
        ("obs batch", "obs has shape \\[3, 1\\], expected \\[4, 1\\]"),
        ("rewards shape", "rewards has shape \\[4\\], expected \\[4, 1\\]: add a trailing dimension"),
        ("rewards dtype", "rewards has dtype torch.int64"),
        ("rewards type", "rewards is a float"),
        ("raises", "step 7 of the horizon\\) raised ZeroDivisionError: oops"),
        ("tuple", "returned a tuple, expected a TensorDict"),
        ("no rewards", "with the keys \\['obs'\\], expected"),
    ],
)
def test_faults_are_named(fault, words):
    def play():
        env = make_env(Broken, 4, {"fault": fault}, torch.device("cpu"))
        checked_reset(env, 4, None, torch.device("cpu"))
        checked_step(env, 4, torch.zeros(4, 1, dtype=torch.int64), 7, torch.device("cpu"))

    with pytest.raises(EnvError, match=words):
        play()
