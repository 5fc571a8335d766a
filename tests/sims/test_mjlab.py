"""mjlab itself, on Warp's CPU device: its steps, its endings, and that a policy learns by them."""

import logging
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch

pytest.importorskip("mjlab")

from rlstack import Algorithm, EnvError, Trainer
from rlstack.conditions import HitsUpperBound
from rlstack.env import check_env
from rlstack.env.mjlab import make
from rlstack.env.simulators import find_simulator

PAGE = Path(__file__).parents[2] / "docs" / "simulators" / "vec_env.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
TASK = "Mjlab-Cartpole-Balance"
STEPS = 10
# A step takes 0.05 s.
SHORT = {"episode_length_s": STEPS * 0.05}
FIXED = {"init_at_random_ep_len": False}


def walked(steps, seed=0, **options):
    """Return an environment, its first observations, and what so many steps under random actions returned."""
    env = make(TASK, **options)(4)
    torch.manual_seed(seed)
    first = env.reset()
    actions = torch.rand(steps, 4, 1, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return env, first, [env.step(action) for action in actions]


def test_groups_actions_and_logs():
    env, first, outs = walked(STEPS, cfg=SHORT, **FIXED)
    assert (env.policy_keys, env.value_keys) == (["actor"], ["critic"])
    assert [(key, tuple(group.shape)) for key, group in first.items()] == [
        ("actor", (4, 5)),
        ("critic", (4, 5)),
    ]
    assert env.action_spec.shape == (1,)
    assert all(out["rewards"].shape == (4, 1) for out in outs)
    assert env.metrics().keys() == {"Episode_Reward/smooth_reward", "Episode_Termination/time_out"}
    assert env.metrics() == {}


def test_last_observations_are_those_of_an_episode_that_goes_on():
    _, first, outs = walked(STEPS, cfg=SHORT, **FIXED)
    _, same, whole = walked(STEPS + 1, **FIXED)
    assert torch.equal(first["actor"], same["actor"])
    for out, longer in zip(outs[:-1], whole, strict=False):
        assert not (out["truncated"] | out["terminated"]).any()
        torch.testing.assert_close(out["obs"]["actor"], longer["obs"]["actor"])
        torch.testing.assert_close(out["rewards"], longer["rewards"])
    last = outs[-1]
    assert last["truncated"].all()
    assert not last["terminated"].any()
    torch.testing.assert_close(last["final_obs"]["actor"], whole[STEPS - 1]["obs"]["actor"])
    # Cart and pole start at rest, within 0.1 m and 0.034 rad.
    begun = last["obs"]["actor"]
    assert (begun[:, 0].abs() <= 0.1 + 1e-6).all()
    assert (begun[:, 3:].abs() <= 0.01 + 1e-6).all()
    assert (last["final_obs"]["actor"][:, 4].abs() > 0.01).any()


def test_rows_end_on_their_own():
    env = make(TASK, cfg=SHORT, **FIXED)(4)
    env.reset()
    env.simulator.episode_length_buf = torch.tensor([0, 3, 6, 9])
    outs = [env.step(torch.zeros(4, 1)) for _ in range(2 * STEPS)]
    for row, age in enumerate((0, 3, 6, 9)):
        ended = [step for step, out in enumerate(outs) if out["truncated"][row]]
        assert ended == [STEPS - age - 1, 2 * STEPS - age - 1]
    for before, out in pairwise(outs):
        going = ~out["truncated"].squeeze(1)
        assert torch.equal(out["final_obs"]["critic"][going], out["obs"]["critic"][going])
        # Within a step of 0.05 s no cart that goes on is put elsewhere.
        assert ((out["obs"]["actor"] - before["obs"]["actor"])[going, 0].abs() < 0.05).all()


def test_mjlab_may_put_rows_back_itself():
    _, first, outs = walked(STEPS, cfg={**SHORT, "auto_reset": True}, **FIXED)
    _, same, by_hand = walked(STEPS, cfg=SHORT, **FIXED)
    assert torch.equal(first["actor"], same["actor"])
    for out, other in zip(outs, by_hand, strict=True):
        assert "final_obs" not in out
        assert torch.equal(out["truncated"], other["truncated"])
        torch.testing.assert_close(out["rewards"], other["rewards"])
    assert (outs[-1]["obs"]["actor"][:, 3:].abs() <= 0.01 + 1e-6).all()


@pytest.mark.timeout(600)
def test_check_env_has_no_faults():
    report = check_env(make(TASK, cfg=SHORT), num_envs=4, steps=16, device="cpu")
    assert [finding for finding in report.findings if finding.level == "fault"] == []
    assert f"{TASK} has no state_dict and load_state_dict: a resumed run resets it" in [
        finding.said for finding in report.findings
    ]


def test_what_there_is_not_is_named():
    with pytest.raises(EnvError, match=f"mjlab:Mjlab-Cartpole-Balanc is not a .*did you mean mjlab:{TASK}"):
        find_simulator("mjlab:Mjlab-Cartpole-Balanc")
    with pytest.raises(EnvError, match=r"cfg has no option episode_length: did you mean episode_length_s?"):
        make(TASK, cfg={"episode_length": 5.0})(2)


def test_a_run_goes_on_with_a_reset_and_says_so(tmp_path, caplog):
    config = {"num_envs": 4, "horizon": 8, "horizons_per_env_reset": -1, "device": "cpu", "seed": 0}
    cls = make(TASK)
    with Trainer(cls, algorithm_config=config, run_dir=tmp_path / "run", track=False) as trainer:
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/collects", 2)])
    with caplog.at_level(logging.WARNING):
        resumed = Trainer.resume(tmp_path / "run", env_cls=cls, track=False)
    assert f"{TASK} has no state_dict and load_state_dict: it is reset" in caplog.text
    with resumed:
        stats = resumed.run(stop_conditions=[HitsUpperBound("algorithm/collects", 3)])
    assert stats["algorithm/collects"] == 3


def test_the_page_on_it_trains(tracked, capsys):
    [code] = [code for code in SNIPPETS if "rlstack.env.mjlab" in code]
    exec(compile(code, "vec_env.md", "exec"), {"__name__": "__main__"})
    assert float(capsys.readouterr().out) > 0


def test_the_page_has_the_recipe_that_mjlab_has():
    from mjlab.rl import RslRlOnPolicyRunnerCfg

    [code] = [code for code in SNIPPETS if code.startswith("recipe = ")]
    exec(code, names := {})
    recipe, theirs = names["recipe"], RslRlOnPolicyRunnerCfg()
    algorithm = theirs.algorithm
    assert (algorithm.schedule, algorithm.use_clipped_value_loss) == ("adaptive", True)
    assert not algorithm.normalize_advantage_per_mini_batch
    assert not theirs.actor.obs_normalization
    assert recipe == {
        "num_envs": 4096,
        "horizon": theirs.num_steps_per_env,
        "horizons_per_env_reset": -1,
        "num_sgd_iters": algorithm.num_learning_epochs,
        "sgd_minibatch_size": 4096 * theirs.num_steps_per_env // algorithm.num_mini_batches,
        "optimizer_config": {"lr": algorithm.learning_rate},
        "adaptive_lr": algorithm.desired_kl,
        "gamma": algorithm.gamma,
        "gae_lambda": algorithm.lam,
        "clip_param": algorithm.clip_param,
        "vf_clip_param": algorithm.clip_param,
        # Half of the squared error here, all of it there.
        "vf_coeff": 2 * algorithm.value_loss_coef,
        "entropy_coeff": algorithm.entropy_coef,
        "max_grad_norm": algorithm.max_grad_norm,
        "normalize_rewards": False,
        "model_config": {
            "hiddens": list(theirs.actor.hidden_dims),
            "activation_fn": theirs.actor.activation,
        },
    }


def test_a_motion_that_is_missing_is_asked_for():
    with pytest.raises(EnvError, match=r"mjlab:Mjlab-Tracking-.* follows a motion, and none is given"):
        make("Mjlab-Tracking-Flat-Unitree-G1")(2)


@pytest.mark.timeout(1200)
def test_a_policy_learns_to_balance():
    # What mjlab trains it with, in rlstack's names; episodes of 5 s instead of 50, and 64 environments.
    steps = 100
    algorithm = Algorithm(
        make(TASK, cfg={"episode_length_s": steps * 0.05}),
        num_envs=64,
        horizon=32,
        horizons_per_env_reset=-1,
        num_sgd_iters=5,
        sgd_minibatch_size=512,
        adaptive_lr=0.01,
        gamma=0.99,
        entropy_coeff=0.01,
        vf_coeff=2.0,
        vf_clip_param=0.2,
        max_grad_norm=1.0,
        normalize_rewards=False,
        model_config={"hiddens": [64, 64], "activation_fn": "elu"},
        device="cpu",
        seed=0,
    )
    returns = []
    for _ in range(150):
        stats = algorithm.collect()
        algorithm.step()
        # The first episodes are of random ages.
        if stats.get("episodes/lengths/mean") == steps:
            returns.append(stats["episodes/returns/mean"])
        if len(returns) > 3 and min(returns[-3:]) >= 2 * returns[0]:
            break
    assert min(returns[-3:]) >= 2 * returns[0] > 0
