"""Whether what an environment may have beside `reset` and `step` does what it should."""

from collections import deque
from dataclasses import replace

from ..env.base import most_steps
from ..env.optional import env_metrics, set_env_config, takes_config
from .subject import Subject, walk


def check_metrics(subject: Subject) -> str | None:
    """Ask for its own metrics after some steps: numbers by name."""
    env = subject.make()
    subject.reset(env)
    deque(walk(subject, env), maxlen=0)
    env_metrics(env, subject.device)
    held = getattr(env, "metrics", None)
    if held is None or callable(held):
        return None
    name = type(env).__name__
    return (
        f"{name}.metrics is a {type(held).__name__}, which nothing reads: make it a method that returns them"
    )


def check_set_config(subject: Subject) -> str | None:
    """Change its options without a reset, before the first one and between two steps."""
    env = subject.make()
    if not takes_config(env):
        return None
    half = replace(subject, steps=max(1, most_steps(env, subject.steps) // 2))
    for config in ({}, dict(subject.config or {})):
        env = subject.make()
        set_env_config(env, config)
        subject.reset(env)
        deque(walk(half, env), maxlen=0)
        set_env_config(env, config)
        if most_steps(env, subject.steps) > 1:
            deque(walk(half, env), maxlen=0)
    return None
