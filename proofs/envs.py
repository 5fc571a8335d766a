"""R5 and R6: whatever an environment or a model does wrong is named, and nothing of it reaches the policy.

Each environment is sound for one horizon, from which the policy is updated, and wrong in the next one.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from rlstack import Algorithm, RecurrentAlgorithm, RecurrentHparamsDict, Trainer
from rlstack.common.errors import HparamsError, NonFiniteError
from rlstack.engine.kernels import steps
from rlstack.env import Env, EnvError
from rlstack.models import DiscreteMLP, Model
from rlstack.specs import Bounded, Categorical, Composite, MultiCategorical, Unbounded

NUM_ENVS, HORIZON, BAD_STEP, BAD_ENV = 8, 4, 2, 3
LAST_SOUND = HORIZON


class Sound(Env):
    """Nothing is wrong with it; the cases below change what it returns, from its second horizon on."""

    nested = False
    discrete = False

    def __init__(self, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        super().__init__(num_envs, config=config, device=device)
        self.observation_spec = Unbounded((3,))
        if self.nested:
            self.observation_spec = Composite(pose=Unbounded((3,)), sensors=Composite(force=Unbounded((2,))))
        if self.discrete:
            self.observation_spec = Categorical(4, shape=(1,))
        self.action_spec = Categorical(2, shape=(1,))
        self.resets = self.count = 0

    def observe(self) -> Any:
        """Return sound observations."""
        if self.discrete:
            return torch.randint(4, (self.num_envs, 1))
        if self.nested:
            sensors = TensorDict({"force": torch.randn(self.num_envs, 2)}, batch_size=self.num_envs)
            pose = torch.randn(self.num_envs, 3)
            return TensorDict({"pose": pose, "sensors": sensors}, batch_size=self.num_envs)
        return torch.randn(self.num_envs, 3)

    def reset(self, *, config: Any = None) -> Any:
        """Return sound observations."""
        self.resets, self.count = self.resets + 1, 0
        return self.observe()

    def step(self, action: Any) -> Any:
        """Return sound observations and rewards."""
        self.count += 1
        out = {"obs": self.observe(), "rewards": torch.randn(self.num_envs, 1)}
        return TensorDict(out, batch_size=self.num_envs)

    @property
    def is_bad(self) -> bool:
        """Whether it is the moment to do something wrong."""
        return self.resets == 2 and self.count == BAD_STEP + 1


class Case(NamedTuple):
    """What is wrong, and what must be said of it."""

    name: str
    env_cls: Callable[..., Any]
    said: str
    """Regular expression that the error matches."""
    error: type[Exception] = EnvError


def _in_step(
    name: str, change: Callable[[Any], Any], said: str, error: type[Exception] = EnvError, **traits: Any
) -> Case:
    """Return the case of a step whose result is changed."""

    def step(self: Any, action: Any) -> Any:
        out = Sound.step(self, action)
        return change(out) if self.is_bad else out

    return Case(name, type("Faulty", (Sound,), {"step": step, **traits}), said, error)


def _in_reset(
    name: str, change: Callable[[Any], Any], said: str, error: type[Exception] = EnvError, **traits: Any
) -> Case:
    """Return the case of a second reset whose result is changed."""

    def reset(self: Any, *, config: Any = None) -> Any:
        out = Sound.reset(self)
        return change(out) if self.resets == 2 else out

    return Case(name, type("Faulty", (Sound,), {"reset": reset, **traits}), said, error)


def _raising(fault: BaseException) -> Callable[[Any], Any]:
    def change(out: Any) -> Any:
        raise fault

    return change


def _put(path: str | tuple[str, ...], make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what replaces a part of a step's result; a dictionary takes what a TensorDict wouldn't."""

    def change(out: Any) -> Any:
        keys = (path,) if isinstance(path, str) else path
        found = {key: out[key] for key in out.keys()}  # noqa: SIM118 (of a TensorDict)
        if len(keys) == 1:
            found[keys[0]] = make(found[keys[0]])
        else:
            found[keys[0]] = found[keys[0]].clone()
            found[keys[0]][keys[1:]] = make(found[keys[0]][keys[1:]])
        return found

    return change


def _mark(value: float) -> Callable[[Tensor], Tensor]:
    """Return what puts a value into the row of one environment."""

    def make(tensor: Tensor) -> Tensor:
        marked = tensor.clone()
        marked[BAD_ENV] = value
        return marked

    return make


def _without(key: Any) -> Callable[[Any], Any]:
    return lambda out: out.exclude(key)


NAN, INF = float("nan"), float("inf")
AT = rf"step \(?{BAD_STEP}|step {BAD_STEP}"
STEP = f"Faulty.step \\(step {BAD_STEP} of the horizon\\)"
WHO = f"of environment {BAD_ENV} from Faulty .*in step {BAD_STEP} of the horizon"


def _forms() -> Iterator[Case]:
    """Yield wrong forms of observations and rewards."""
    obs: list[tuple[str, Callable[[Any], Any], str]] = [
        ("numpy", lambda x: x.numpy(), "obs is a numpy.ndarray, expected a torch.Tensor"),
        ("list", lambda x: x.tolist(), "obs is a list"),
        ("None", lambda x: None, "obs is a NoneType"),
        ("number", lambda x: 1.0, "obs is a float"),
        ("float64", lambda x: x.double(), "obs has dtype torch.float64, expected torch.float32"),
        ("float16", lambda x: x.half(), "obs has dtype torch.float16"),
        ("int64", lambda x: x.long(), "obs has dtype torch.int64"),
        ("bool", lambda x: x > 0, "obs has dtype torch.bool"),
        ("complex", lambda x: x.to(torch.complex64), "obs has dtype torch.complex64"),
        ("flat", lambda x: x[:, 0], r"obs has shape \[8\], expected \[8, 3\]"),
        ("wide", lambda x: torch.cat([x, x], 1), r"obs has shape \[8, 6\]"),
        ("more", lambda x: torch.cat([x, x[:1]]), r"obs has shape \[9, 3\]"),
        ("fewer", lambda x: x[1:], r"obs has shape \[7, 3\]"),
        ("none", lambda x: x[:0], r"obs has shape \[0, 3\]"),
        ("deeper", lambda x: x.unsqueeze(1), r"obs has shape \[8, 1, 3\].*reshape"),
        ("transposed", lambda x: x.T, r"obs has shape \[3, 8\]"),
        ("scalar", lambda x: x.sum(), r"obs has shape \[\]"),
        ("elsewhere", lambda x: x.to("meta"), "obs is on meta, expected cpu"),
    ]
    for name, make, said in obs:
        yield _in_step(f"obs {name}", _put("obs", make), f"{STEP}: {said}")
    rewards: list[tuple[str, Callable[[Any], Any], str]] = [
        ("flat", lambda x: x[:, 0], r"rewards has shape \[8\], expected \[8, 1\]: add a trailing dimension"),
        ("wide", lambda x: torch.cat([x, x], 1), r"rewards has shape \[8, 2\]"),
        ("more", lambda x: torch.cat([x, x[:1]]), r"rewards has shape \[9, 1\]"),
        ("scalar", lambda x: x.sum(), r"rewards has shape \[\]"),
        ("number", lambda x: 1.0, "rewards is a float"),
        ("None", lambda x: None, "rewards is a NoneType"),
        ("list", lambda x: x.tolist(), "rewards is a list"),
        ("numpy", lambda x: x.numpy(), "rewards is a numpy.ndarray"),
        ("int64", lambda x: x.long(), "rewards has dtype torch.int64"),
        ("bool", lambda x: x > 0, "rewards has dtype torch.bool"),
        ("complex", lambda x: x.to(torch.complex64), "rewards has dtype torch.complex64"),
        ("elsewhere", lambda x: x.to("meta"), "rewards is on meta, expected cpu"),
    ]
    for name, make, said in rewards:
        yield _in_step(f"rewards {name}", _put("rewards", make), f"{STEP}: {said}")
    deep = ("obs", "sensors", "force")
    yield _in_step(
        "nested float64",
        _put(deep, lambda x: x.double()),
        f"{STEP}: obs.sensors.force has dtype",
        nested=True,
    )
    yield _in_step(
        "nested shape", _put(deep, lambda x: x[:, :1]), f"{STEP}: obs.sensors.force has shape", nested=True
    )
    yield _in_step(
        "nested missing", _without(("obs", "pose")), rf"{STEP}: obs has the keys \['sensors'\]", nested=True
    )
    yield _in_step(
        "nested deep missing",
        _without(deep),
        rf"{STEP}: obs.sensors has the keys \[\], expected \['force'\]",
        nested=True,
    )
    yield _in_step(
        "nested more",
        lambda out: out.set(("obs", "more"), torch.zeros(NUM_ENVS, 1)),
        f"{STEP}: obs has the keys .*more",
        nested=True,
    )
    yield _in_step(
        "nested dictionary",
        _put("obs", lambda x: x.to_dict()),
        f"{STEP}: obs is a dict, expected a TensorDict",
        nested=True,
    )
    yield _in_step(
        "nested tensor",
        _put("obs", lambda x: x["pose"]),
        rf"{STEP}: obs is a tensor of shape \[8, 3\], expected a TensorDict",
        nested=True,
    )
    yield _in_step(
        "nested batch",
        _put("obs", lambda x: TensorDict(x.to_dict(), batch_size=[])),
        f"{STEP}: obs has batch size",
        nested=True,
    )


def _results() -> Iterator[Case]:
    """Yield wrong results as a whole."""
    yield _in_step(
        "no obs", _without("obs"), r"Faulty.step returned a TensorDict with the keys \['rewards'\]"
    )
    yield _in_step(
        "no rewards", _without("rewards"), r"Faulty.step returned a TensorDict with the keys \['obs'\]"
    )
    yield _in_step("nothing", lambda out: None, "Faulty.step returned a NoneType, expected a TensorDict")
    yield _in_step("a pair", lambda out: (out["obs"], out["rewards"]), "Faulty.step returned a tuple")
    yield _in_step(
        "as Gymnasium",
        lambda out: (out["obs"], out["rewards"], torch.zeros(8), torch.zeros(8), {}),
        "Faulty.step returned a tuple",
    )
    yield _in_step("only obs", lambda out: out["obs"], "Faulty.step returned a Tensor, expected a TensorDict")
    yield _in_step(
        "other names",
        lambda out: {"observation": 1, "reward": 2},
        r"with the keys \['observation', 'reward'\]",
    )
    yield _in_reset("reset as Gymnasium", lambda obs: (obs, {}), "Faulty.reset: obs is a tuple")
    yield _in_reset("reset nothing", lambda obs: None, "Faulty.reset: obs is a NoneType")
    yield _in_reset("reset shape", lambda obs: obs[:1], r"Faulty.reset: obs has shape \[1, 3\]")
    yield _in_reset("reset numpy", lambda obs: obs.numpy(), "Faulty.reset: obs is a numpy.ndarray")
    yield _in_reset("reset elsewhere", lambda obs: obs.to("meta"), "Faulty.reset: obs is on meta")
    for fault in (
        ValueError("no such joint"),
        KeyError("joint"),
        RuntimeError("CUDA error"),
        ZeroDivisionError("division by zero"),
        AssertionError("energy"),
        StopIteration(),
        RecursionError("too deep"),
        MemoryError("too much"),
        NotImplementedError("later"),
        OSError("device lost"),
    ):
        kind = type(fault).__name__
        yield _in_step(
            f"raises {kind}",
            _raising(fault),
            f"Faulty.step \\(step {BAD_STEP} of the horizon\\) raised {kind}",
        )
    yield _in_reset(
        "reset raises", _raising(ValueError("no world")), "Faulty.reset raised ValueError: no world"
    )


def _values() -> Iterator[Case]:
    """Yield wrong numbers."""
    for value, name in ((NAN, "NaN"), (INF, "infinity"), (-INF, "minus infinity")):
        yield _in_step(f"obs {name}", _put("obs", _mark(value)), f"obs {WHO}", NonFiniteError)
        yield _in_step(f"rewards {name}", _put("rewards", _mark(value)), f"rewards {WHO}", NonFiniteError)
    deep = ("obs", "sensors", "force")
    yield _in_step(
        "nested NaN", _put(deep, _mark(NAN)), f"obs.sensors.force {WHO}", NonFiniteError, nested=True
    )
    after = f"of environment {BAD_ENV} from Faulty .*after the reset"
    yield _in_reset("reset NaN", _mark(NAN), f"obs {after}", NonFiniteError)
    yield _in_step("a category too many", _put("obs", _mark(4)), f"obs {WHO}", discrete=True)
    yield _in_step("a negative category", _put("obs", _mark(-1)), f"obs {WHO}", discrete=True)
    yield _in_reset("reset to no category", _mark(9), f"obs {after}", discrete=True)


def _made(name: str, said: str, error: type[Exception] = EnvError, **traits: Any) -> Case:
    """Return the case of an environment that can't be made; traits are set when it is."""

    def init(self: Any, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        Sound.__init__(self, num_envs, config=config, device=device)
        for key, value in traits.items():
            if value is _GONE:
                delattr(self, key)
            else:
                setattr(self, key, value)

    return Case(name, type("Faulty", (Sound,), {"__init__": init}), said, error)


_GONE = object()


class _Raises(Sound):
    def __init__(self, num_envs: int, /, *, config: Any = None, device: Any = "cpu") -> None:
        raise FileNotFoundError("robot.xml")


class _NoDevice(Sound):
    def __init__(self, num_envs: int, config: Any = None) -> None:
        super().__init__(num_envs)


class _NoStep(Env):
    def reset(self, *, config: Any = None) -> Any:
        return None


class _NoConfig(Sound):
    def reset(self) -> Any:  # type: ignore[override]
        return self.observe()


class _NoAction(Sound):
    def step(self) -> Any:  # type: ignore[override]
        return None


def _constructions() -> Iterator[Case]:
    """Yield environments that can't be made, or whose methods can't be called."""
    yield _made("no observation_spec", "Faulty has no observation_spec", observation_spec=_GONE)
    yield _made("no action_spec", "Faulty has no action_spec", action_spec=None)
    yield _made("no spec", "Faulty.observation_spec is a tuple of 1, expected a spec", observation_spec=(3,))
    yield _made("a number as spec", "Faulty.action_spec is a int, expected a spec", action_spec=2)
    yield _made("a spec without dimensions", r"shape \(\), expected a dimension", action_spec=Categorical(2))
    yield _made("max_horizon 0", "Faulty.max_horizon is 0, expected a positive integer", max_horizon=0)
    yield _made("max_horizon a text", "Faulty.max_horizon is '10'", max_horizon="10")
    yield _made("max_horizon a number", "Faulty.max_horizon is 1.5", max_horizon=1.5)
    unbounded = Bounded(-INF, INF, (1,))
    yield _made("no bounds", "finite|bound", Exception, action_spec=unbounded)
    whole = Bounded(0, 5, (1,), dtype=torch.int64)
    yield _made("whole bounds", "int64|floating|dtype", Exception, action_spec=whole)
    square = MultiCategorical(torch.tensor([[2, 3], [4, 5]]))
    yield _made("choices in a square", "MultiCategorical|1-D|dimension", Exception, action_spec=square)
    yield Case("raises when made", _Raises, "_Raises raised FileNotFoundError: robot.xml")
    yield Case("takes no device", _NoDevice, "_NoDevice raised TypeError: .*device")
    yield Case("has no step", _NoStep, "_NoStep raised TypeError: .*abstract")
    yield Case("reset takes no config", _NoConfig, "_NoConfig.reset raised TypeError: .*config")
    yield Case(
        "step takes no action", _NoAction, r"_NoAction.step \(step 0 of the horizon\) raised TypeError"
    )
    yield Case("is no class", 3, "the environment is 3, expected a class derived from Env")  # type: ignore[arg-type]


CASES = [*_forms(), *_results(), *_values(), *_constructions()]
"""R5: what an environment can do wrong."""


class _Faulty(Model):
    """A model whose features, values or gradients turn bad when it is told."""

    bad_part = ""
    factor = NAN

    def __init__(self, observation_spec: Any, action_spec: Any, /) -> None:
        super().__init__(observation_spec, action_spec)
        self.inner = DiscreteMLP(observation_spec, action_spec, hiddens=(8,))

    def forward(self, obs: Any) -> Any:
        features, values = self.inner(obs)
        factor = self.factor
        if self.bad_part == "features":
            features["logits"] = features["logits"] * factor
        if self.bad_part == "values":
            values = values * factor
        if self.bad_part == "gradient" and values.requires_grad:
            values.register_hook(lambda gradient: gradient * factor)
        return features, values


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("Adam", {}),
    ("SGD", {"optimizer_cls": torch.optim.SGD}),
    ("SGD with momentum", {"optimizer_cls": torch.optim.SGD, "optimizer_config": {"momentum": 0.9}}),
    ("RMSprop", {"optimizer_cls": torch.optim.RMSprop}),
    ("accumulated", {"accumulate_grads": True, "sgd_minibatch_size": 8}),
    ("in 16 bits", {"enable_amp": True}),
]
"""R6: how the policy is updated, when a loss or a gradient turns bad."""


PLACES = ("features", "values", "gradient", "written-out loss", "written-out gradient", "small steps")
"""Where: in a model of one's own, in the passes of the default one, and where all steps are made at once."""


def prove(directory: Path) -> dict[str, Any]:
    """Let everything go wrong; return what wasn't named, or reached the policy."""
    faults = [fault for case in CASES if (fault := one(case))]
    injected = [(*each, place, value) for each in FAULTS for place in PLACES for value in (NAN, INF)]
    faults += [fault for each in injected if (fault := inject(*each))]
    return {"held": not faults, "environments": len(CASES), "injected": len(injected), "faults": faults}


def one(case: Case, algorithm_cls: Any = Algorithm) -> str:
    """Train until an environment goes wrong; return what was wrong with that, nothing if all was well."""
    config: RecurrentHparamsDict = {
        "num_envs": NUM_ENVS,
        "horizon": HORIZON,
        "model_config": {"hiddens": [8]},
        "device": "cpu",
        "seed": 0,
    }
    if algorithm_cls is RecurrentAlgorithm:
        config |= {"model_config": {"hidden_size": 8}, "seq_len": 2}
    trainer, before = None, None
    try:
        trainer = Trainer(case.env_cls, algorithm_cls=algorithm_cls, algorithm_config=config, track=False)
        before = parameters(trainer)
        trainer.step()
        before = parameters(trainer)
        trainer.step()
    except Exception as error:
        said = str(error)
        expected = (EnvError, HparamsError) if case.error is Exception else case.error
        if not isinstance(error, expected) or not re.search(case.said, said) or len(said.splitlines()) > 3:
            return f"{case.name}: {type(error).__name__}: {said}"
        if trainer is not None and not same(before, parameters(trainer)):
            return f"{case.name}: the policy has changed"
        if trainer is not None and case.env_cls.__name__ == "Faulty":
            # It was wrong once: training goes on.
            stats = trainer.step()
            if not all(np.isfinite(list(stats.values()))):
                return f"{case.name}: training doesn't go on"
        return ""
    return f"{case.name}: nothing was said"


def inject(name: str, options: dict[str, Any], place: str, value: float) -> str:
    """Let a model turn bad after one update; return what was wrong with that, nothing if all was well."""
    own, small = place in PLACES[:3], place == PLACES[-1]
    if small and name != "Adam":
        # Those are Adam's alone.
        return ""
    what: dict[str, Any] = {"model_cls": _Faulty} if own else {"model_config": {"hiddens": [8]}}
    algorithm = Algorithm(Sound, num_envs=NUM_ENVS, horizon=HORIZON, device="cpu", seed=0, **what, **options)
    model, learner = algorithm.policy.model, algorithm.learner
    algorithm.collect()
    algorithm.step()
    algorithm.collect()
    before = [parameter.clone() for parameter in model.parameters()]
    gradient = learner.gradient

    def turn_bad(*arguments: Any) -> Tensor:
        losses = gradient(*arguments)
        if place.endswith("loss"):
            return losses * value
        for parameter in learner.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(value)
        return losses

    rows = steps.ManySteps._rows

    def bad_rows(*arguments: Any) -> Any:
        found = rows(*arguments)
        return found._replace(targets=found.targets * value)

    if own:
        model.bad_part, model.factor = place, value
    elif not small:
        learner.gradient = turn_bad  # type: ignore[method-assign, assignment]
    where = f"{name}, {place} {value}"
    try:
        # Many at once, or steps one by one.
        patched: dict[str, Any] = {"_rows": bad_rows} if small else {"are_adams": lambda _: False}
        with patch.multiple(steps.ManySteps, **patched):
            algorithm.step()
    except NonFiniteError as error:
        if not re.search(
            "the (loss|gradient) is NaN or infinite in optimizer step 0 of update 2", str(error)
        ):
            return f"{where}: {error}"
        if not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)):
            return f"{where}: the policy has changed"
    else:
        return f"{where}: nothing was said"
    if own:
        model.bad_part = ""
    learner.gradient = gradient  # type: ignore[method-assign]
    algorithm.collect()
    stats = algorithm.step()
    return "" if np.isfinite(stats["losses/total"]) else f"{where}: training doesn't go on"


def parameters(trainer: Trainer) -> dict[str, Tensor]:
    """Return all that the policy holds, copied."""
    return {name: value.clone() for name, value in trainer.algorithm.policy.state_dict().items()}


def same(one: Any, other: dict[str, Tensor]) -> bool:
    """Return whether two policies hold the same bits."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
