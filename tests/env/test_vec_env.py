"""Simulators of rsl_rl's form, by stand-ins that have their shapes, dtypes and traps."""

import logging
from types import SimpleNamespace

import gymnasium
import pytest
import torch
from tensordict import TensorDict

from rlstack import Algorithm, EnvError, Trainer
from rlstack.conditions import HitsUpperBound
from rlstack.env import check_env
from rlstack.env.vec_env import from_vec_env
from rlstack.runs.class_files import name_class
from rlstack.runs.class_paths import find_class
from rlstack.specs import Unbounded

from ..helpers import SMALL
from ..standin import record
from . import vec_forms
from .vec_forms import FORMS, made
from .walk import CONFIG, LIMIT, walked


def policy_part(obs):
    return next(obs[key] for key in ("actor", "policy", "state") if key in obs) if is_dict(obs) else obs


def is_dict(obs):
    return isinstance(obs, TensorDict)


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_tell_the_same_transitions(form):
    env = made(form, init_at_random_ep_len=False)(5)
    outs, truth = walked(env)
    assert len(truth) == len(outs)
    assert sum(int(late.sum()) for *_, late in truth) > 2
    assert sum(int(lost.sum()) for _, _, _, lost, _ in truth) > 2
    for out, (seen, secret, rewards, lost, late), *_ in zip(outs, truth, strict=True):
        going = ~(lost | late)
        torch.testing.assert_close(out["rewards"], rewards[:, None])
        assert out["terminated"].dtype == out["truncated"].dtype == torch.bool
        assert out["terminated"].squeeze(1).tolist() == lost.tolist()
        assert out["truncated"].squeeze(1).tolist() == late.tolist()
        torch.testing.assert_close(policy_part(out["obs"])[going], seen[going])
        begun = policy_part(out["obs"])[~going]
        # The first of the next episode, and no other one.
        assert (begun[:, 0].abs() <= 0.2 + 1e-6).all()
        if is_dict(out["obs"]) and form != "GenesisBefore":
            value = out["obs"][env.value_keys[0]]
            torch.testing.assert_close(value[going][:, :3], secret[going])
            assert (value[~going][:, 1] == 0).all()


@pytest.mark.parametrize(
    ("form", "options"), [("Mjlab", {}), ("IsaacLab23", {"compute_final_obs": True}), ("IsaacLab23", {})]
)
def test_last_observations_are_the_true_ones_where_the_simulator_tells_them(form, options):
    env = made(form, **options)(5)
    outs, truth = walked(env)
    for out, (seen, secret, _, lost, late) in zip(outs, truth, strict=True):
        assert ("final_obs" in out) == (form == "Mjlab" or bool(options))
        ended = lost | late
        if "final_obs" in out and ended.any():
            policy, value = env.policy_keys[0], env.value_keys[0]
            torch.testing.assert_close(out["final_obs"][policy][ended], seen[ended])
            torch.testing.assert_close(out["final_obs"][value][ended][:, :3], secret[ended])
            assert not torch.equal(out["final_obs"][value][ended], out["obs"][value][ended])


def test_last_observations_that_are_asked_for_in_vain_are_an_error():
    class Before(vec_forms.IsaacLab23):
        """A version that doesn't know of them."""

        def step(self, actions):
            *out, extras = super().step(actions)
            return *out, {key: value for key, value in extras.items() if key != "final_obs"}

    env = from_vec_env(Before, compute_final_obs=True, init_at_random_ep_len=False)(3)
    env.reset()
    for _ in range(LIMIT - 1):
        env.step(torch.zeros(3, 1))
    with pytest.raises(EnvError, match=r"Before.step returned no final_obs where episodes ended"):
        env.step(torch.zeros(3, 1))


def test_a_simulator_that_puts_no_rows_back_is_refused():
    class Disabled(vec_forms.IsaacLab23):
        def __init__(self, num_envs, *, device):
            super().__init__(num_envs, device=device)
            self.cfg.autoreset_mode = gymnasium.vector.AutoresetMode.DISABLED

    with pytest.raises(EnvError, match="Disabled: autoreset_mode is DISABLED, so nobody begins the next"):
        from_vec_env(Disabled)(2)


def test_rows_that_go_on_are_not_observed_anew_when_others_are_put_back_by_hand():
    env = made("Mjlab", init_at_random_ep_len=False)(5)
    outs, truth = walked(env)
    for out, (*_, lost, late) in zip(outs, truth, strict=True):
        going = ~(lost | late)
        noise, noise_before = out["obs"]["critic"][:, 3], out["final_obs"]["critic"][:, 3]
        assert noise[going].tolist() == noise_before[going].tolist()
        assert (noise[~going] == noise_before[~going] + 1000).all()


@pytest.mark.parametrize("form", FORMS)
def test_what_was_returned_stays_what_it_was(form):
    env = made(form)(3)
    first = env.reset()
    kept, out = first.clone(), env.step(torch.ones(3, 1))
    before = out.clone()
    env.step(torch.ones(3, 1))
    assert (policy_part(first) == policy_part(kept)).all()
    for key in ("rewards", "terminated", "truncated"):
        assert torch.equal(out[key], before[key])
    assert (policy_part(out["obs"]) == policy_part(before["obs"])).all()


@pytest.mark.parametrize("form", ["IsaacLab23", "Playground", "LeggedGym", "Mjlab"])
def test_check_env_has_no_faults(form):
    report = check_env(made(form), num_envs=3, steps=16, device="cpu")
    assert [f for f in report.findings if f.level == "fault"] == []


def test_actions_are_clipped_on_their_way_and_stay_as_they_were():
    env = made("IsaacLab23", clip_actions=0.5)(2)
    env.reset()
    action = torch.tensor([[3.0], [-0.25]])
    env.step(action)
    handed = env.simulator.handed[0]
    assert handed.tolist() == [[0.5], [-0.25]]
    assert action.tolist() == [[3.0], [-0.25]]
    assert env.action_spec == Unbounded((1,))
    env.reset(config={"clip_actions": None})
    env.step(action)
    assert torch.equal(env.simulator.handed[1], action)
    assert env.simulator.handed[1].data_ptr() != action.data_ptr()


def test_chance_follows_from_torchs_seed():
    def run(seed):
        torch.manual_seed(seed)
        isaac, playground = made("IsaacLab23")(2), made("Playground")(2)
        for _ in range(2):
            isaac.reset()
            playground.reset()
        return isaac.simulator.seeds, playground.simulator.seed, torch.rand(3).tolist()

    assert run(0) == run(0)
    (seeds, seed, after), (others, other, after_other) = run(0), run(1)
    assert len({*seeds, *others}) == 4
    assert seed != other
    assert after != after_other
    # The simulator has set torch's seed, but not for us.
    torch.manual_seed(seeds[-1])
    assert torch.rand(3).tolist() != after


def test_a_seed_that_is_given_is_taken():
    assert made("Playground", seed=7)(2).simulator.seed == 7


def test_what_is_printed_goes_where_errors_go(capsys):
    made("IsaacLab23")(2).reset()
    said = capsys.readouterr()
    assert said.out == ""
    assert "Simulation App started" in said.err


def test_without_a_reset_it_can_be_begun_once():
    class Never(vec_forms.Genesis):
        reset = None

    env = from_vec_env(Never)(2)
    assert env.reset().shape == (2, 2)
    with pytest.raises(EnvError, match=r"Never can't be put back: Never has no reset; .*reset=-1"):
        env.reset()
    algorithm = Algorithm(from_vec_env(Never), **CONFIG, model_config=SMALL)
    for _ in range(3):
        assert algorithm.collect()["episodes/count"] > 0
        algorithm.step()


@pytest.mark.parametrize(
    ("options", "config", "said"),
    [
        ({}, {"compute_final": 1}, "env_config.compute_final is not an option of IsaacLab23: did you mean"),
        ({"clip_actions": -1.0}, {}, "env_config.clip_actions is -1.0, expected a number above 0, or None"),
        ({}, {"init_at_random_ep_len": 1}, "init_at_random_ep_len is 1, expected True or False"),
        ({"cuda_only": True}, {}, "IsaacLab23 needs a GPU: device is cpu, expected cuda"),
    ],
)
def test_options_that_cannot_be_are_refused(options, config, said):
    with pytest.raises(EnvError, match=said):
        made("IsaacLab23", **options)(2, config=config)


def test_options_of_the_simulator_stay():
    env = made("IsaacLab23", compute_final_obs=True)(2, config={"finite": True})
    assert env.simulator.cfg == SimpleNamespace(compute_final_obs=True, is_finite_horizon=True)
    env.reset(config={"finite": True, "clip_actions": 2.0})
    with pytest.raises(EnvError, match=r"env_config.finite of IsaacLab23 is True and can't be changed"):
        env.reset(config={"finite": False})
    with pytest.raises(EnvError, match=r"env_config.finit is not an option of IsaacLab23: did you mean fin"):
        env.reset(config={"finit": False})


def test_a_time_limit_may_be_the_end_of_a_task():
    env = made("IsaacLab23", finite=True, init_at_random_ep_len=False)(5)
    outs, truth = walked(env)
    for out, (*_, lost, late) in zip(outs, truth, strict=True):
        assert out["terminated"].squeeze(1).tolist() == (lost | late).tolist()
        assert not out["truncated"].any()


def test_a_missing_package_is_one_sentence():
    def hopper(num_envs, *, device):
        import no_such_simulator

        return no_such_simulator

    with pytest.raises(EnvError, match=r"^hopper raised ModuleNotFoundError: No module named 'no_such_simul"):
        Algorithm(from_vec_env(hopper), **CONFIG)


@from_vec_env
def Decorated(num_envs, *, device, privileged=True):  # noqa: N802
    """A simulator of legged_gym's kin."""
    return vec_forms.LeggedGym(num_envs, device=device, privileged=privileged)


Named = from_vec_env(vec_forms.Genesis, name="Named")


def test_classes_are_found_again_by_their_names():
    for cls, name in ((Decorated, "Decorated"), (Named, "Named")):
        assert name_class(cls) == f"{__name__}.{name}"
        assert find_class(name_class(cls), "env") is cls
    assert Decorated.__doc__ == "A simulator of legged_gym's kin."


def test_a_run_goes_on_with_a_reset_and_says_so(tmp_path, caplog):
    config = {**CONFIG, "model_config": SMALL}
    run_dir = tmp_path / "run"
    with Trainer(Decorated, algorithm_config=config, run_dir=run_dir, track=False) as trainer:
        trainer.run(stop_conditions=[HitsUpperBound("algorithm/collects", 2)])
    with caplog.at_level(logging.WARNING):
        resumed = Trainer.resume(run_dir, track=False)
    assert "Decorated has no state_dict and load_state_dict: it is reset" in caplog.text
    with resumed:
        stats = resumed.run(stop_conditions=[HitsUpperBound("algorithm/collects", 3)])
    assert stats["algorithm/collects"] == 3
    assert resumed.algorithm.policy.model.value_encoder.size == 3


def test_simulators_are_stepped_as_they_are_and_updates_are_recorded(caplog):
    # Its tensors can't be put back: they aren't even looked for.
    options = {**CONFIG, "model_config": SMALL}
    recorded, plain = (
        record(Algorithm, made("IsaacLab23"), **options),
        Algorithm(made("IsaacLab23"), **options),
    )
    for algorithm in (recorded, plain):
        torch.manual_seed(1)
        for _ in range(4):
            stats = algorithm.collect()
            algorithm.step()
        algorithm.last = stats["returns/mean"]
    assert recorded.last == pytest.approx(plain.last)
    assert "IsaacLab23._held is a Held, which can't be copied and put back" in caplog.text
    assert recorded.engine.startswith("graph")
