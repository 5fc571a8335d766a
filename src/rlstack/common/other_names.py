"""What hyperparameters are called elsewhere: data for the errors, and for the table in docs/ppo.md."""

import re

LIBRARIES = ("Stable-Baselines3", "CleanRL", "rsl_rl", "skrl", "Brax")

_RATE = "`learning_rate`"

TABLE: dict[str, tuple[str, ...]] = {
    "num_envs": ("`n_envs`", "`num_envs`", "`num_envs`", "`num_envs`", "`num_envs`"),
    "horizon": ("`n_steps`", "`num_steps`", "`num_steps_per_env`", "`rollouts`", "`unroll_length`"),
    "num_sgd_iters": (
        "`n_epochs`",
        "`update_epochs`",
        "`num_learning_epochs`",
        "`learning_epochs`",
        "`num_updates_per_batch`",
    ),
    "sgd_minibatch_size": (
        "`batch_size`",
        "`minibatch_size`, B · T / `num_minibatches`",
        "B · T / `num_mini_batches`",
        "B · T / `mini_batches`",
        "`batch_size` · `unroll_length`",
    ),
    "optimizer_config.lr": (_RATE, _RATE, _RATE, _RATE, _RATE),
    "adaptive_lr": (
        "–",
        "–",
        '`desired_kl`, with `schedule="adaptive"`',
        "`kl_threshold` of `KLAdaptiveLR`",
        "`desired_kl`",
    ),
    "gamma": ("`gamma`", "`gamma`", "`gamma`", "`discount_factor`", "`discounting`"),
    "gae_lambda": ("`gae_lambda`", "`gae_lambda`", "`lam`", "`lambda`", "`gae_lambda`"),
    "clip_param": ("`clip_range`", "`clip_coef`", "`clip_param`", "`ratio_clip`", "`clipping_epsilon`"),
    "vf_clip_param": (
        "`clip_range_vf`",
        "`clip_vloss` (then `clip_coef`)",
        "`use_clipped_value_loss` (then `clip_param`)",
        "`value_clip`",
        "–",
    ),
    "vf_coeff": (
        "`vf_coef`",
        "`vf_coef`",
        "`value_loss_coef`",
        "`value_loss_scale`",
        "`vf_loss_coefficient`",
    ),
    "entropy_coeff": ("`ent_coef`", "`ent_coef`", "`entropy_coef`", "`entropy_loss_scale`", "`entropy_cost`"),
    "target_kl_div": (
        "`target_kl`",
        "`target_kl`",
        "–",
        "`kl_threshold`",
        "–",
    ),
    "max_grad_norm": (
        "`max_grad_norm`",
        "`max_grad_norm`",
        "`max_grad_norm`",
        "`grad_norm_clip`",
        "`max_grad_norm`",
    ),
    "normalize_advantages": (
        "`normalize_advantage` (per minibatch)",
        "`norm_adv` (per minibatch)",
        "always",
        "always",
        "`normalize_advantage`",
    ),
}
"""For each hyperparameter what it is in each of the libraries, as the documentation says it."""


def _within(option: str, keys: str) -> dict[str, str]:
    """Return what to write instead of each of the keys: they are entries of an option."""
    return {
        key: f'here it is {option}={{"{key}": …}}, on the command line {option}.{key}=…'
        for key in keys.split()
    }


def _elsewhere() -> dict[str, str]:
    first: dict[str, str] = {}
    for ours, cells in TABLE.items():
        for name in re.findall(r"`(\w+)`", " ".join(cells)):
            if name not in TABLE:
                first.setdefault(name, f"here it is {ours}")
    rate = _within("optimizer_config", "lr")
    count = "here it is sgd_minibatch_size, num_envs · horizon divided by their number"
    clip = "here it is vf_clip_param, how far a value may move, or None for no clipping"
    stop = "here conditions say when to stop: Trainer's stop_conditions, on the command line --max-env-steps"
    trainer = "it is an option of Trainer"
    recurrent = (
        "it is one of RecurrentAlgorithm: use that, on the command line --algorithm recurrent, in a "
        "configuration file algorithm: recurrent"
    )
    return first | {
        **rate,
        "learning_rate": rate["lr"],
        **_within("optimizer_config", "betas eps momentum weight_decay"),
        **_within("model_config", "action_mask_key activation_fn hiddens layer_norm log_std_init"),
        **_within("model_config", "max_log_std min_log_std value_hiddens"),
        **dict.fromkeys(
            ("hidden_sizes", "net_arch", "policy_kwargs"), _within("model_config", "hiddens")["hiddens"]
        ),
        **dict.fromkeys(("num_mini_batches", "mini_batches", "num_minibatches"), count),
        **dict.fromkeys(("clip_vloss", "use_clipped_value_loss"), clip),
        **dict.fromkeys(("normalize_advantage", "norm_adv"), f"{first['norm_adv']}, over the whole buffer"),
        "kl_threshold": f"{first['kl_threshold']} where it steers the learning rate, else target_kl_div",
        "schedule": "here it is adaptive_lr, the desired KL estimate, or lr_schedule",
        "anneal_lr": 'here it is lr_schedule=[(0, …), (last env_steps, 0)], with lr_schedule_kind="interp"',
        "total_timesteps": stop,
        "num_timesteps": stop,
        "timesteps": stop,
        "max_iterations": stop,
        **dict.fromkeys(("algorithm_cls", "checkpoint_config", "on_nonfinite", "run_dir"), trainer),
        **dict.fromkeys(("stop_conditions", "system_metrics", "track"), trainer),
        **dict.fromkeys(("seq_len", "seqs_per_state_reset"), recurrent),
    }


ELSEWHERE = _elsewhere()
"""What to write instead, as the end of a sentence, of names that aren't those of a hyperparameter here."""
