"""Run an exported policy at 50 Hz with ONNX Runtime; neither torch nor rlstack is needed.

rlstack export runs/cartpole-20260101-1 --to onnx
python examples/serve_onnx.py runs/cartpole-20260101-1/policy.onnx CartPole-v1
"""

import argparse
import time

import gymnasium
import numpy as np
import onnxruntime

TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64}


class OnnxPolicy:
    """Acts on one observation after the other; remembers what a recurrent policy wants to be told again."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        # More threads make one row slower, and its slowest steps much slower.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        given, made = self.session.get_inputs(), self.session.get_outputs()
        [self.obs] = [each for each in given if each.name.startswith("obs")]
        self.states = [each for each in given if each.name.startswith("state.")]
        [self.action] = [each.name for each in made if each.name.startswith("action")]
        self.reset()

    def reset(self) -> None:
        """Forget: an episode begins."""
        self.state = {each.name: np.zeros((1, *each.shape[1:]), TYPES[each.type]) for each in self.states}

    def act(self, obs: np.ndarray) -> np.ndarray:
        """Return the action for one observation."""
        row = np.asarray(obs, TYPES[self.obs.type]).reshape(1, *self.obs.shape[1:])
        names = [self.action, *(f"next_{name}" for name in self.state)]
        action, *after = self.session.run(names, {self.obs.name: row, **self.state})
        self.state = dict(zip(self.state, after, strict=True))
        return action[0]


def main(path: str, env_id: str, hz: float = 50.0, episodes: int = 1) -> list[float]:
    """Return the score of each episode; 0 Hz is as fast as possible."""
    policy, env = OnnxPolicy(path), gymnasium.make(env_id)
    scores, seconds = [], []
    for episode in range(episodes):
        obs, _ = env.reset(seed=episode)
        policy.reset()
        score, ended, due = 0.0, False, time.perf_counter()
        while not ended:
            begin = time.perf_counter()
            action = policy.act(obs)
            seconds.append(time.perf_counter() - begin)
            shape = env.action_space.shape
            action = action.reshape(shape).item() if shape == () else action.reshape(shape)
            obs, reward, terminated, truncated, _ = env.step(action)
            score, ended = score + float(reward), terminated or truncated
            if hz:
                due += 1 / hz
                time.sleep(max(0.0, due - time.perf_counter()))
        scores.append(score)
    p50, p99 = 1e3 * np.percentile(seconds, [50, 99])
    print(f"{len(seconds)} steps at {hz:g} Hz: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    print(f"Mean score of {episodes} episodes: {np.mean(scores):.2f}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("env_id")
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--episodes", type=int, default=1)
    given = parser.parse_args()
    main(given.path, given.env_id, given.hz, given.episodes)
