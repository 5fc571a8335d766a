"""Every example of the README runs, and says what it says."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LOOP = (ROOT / "docs" / "loop.md").read_text()
SNIPPETS = re.findall(r"(<!-- needs: (\w+) -->\n)?```python\n(.*?)```", README + LOOP, re.DOTALL)


def marks(needs, code):
    """Return how a snippet is marked: the default work takes a CPU long in bfloat16."""
    return [
        *([pytest.mark.gpu] if needs == "cuda" else []),
        *([pytest.mark.slow] if "enable_amp=True" in code else []),
    ]


@pytest.mark.parametrize(
    ("needs", "code"),
    [pytest.param(needs, code, marks=marks(needs, code)) for _, needs, code in SNIPPETS],
    ids=[f"snippet{i}" for i in range(len(SNIPPETS))],
)
def test_snippets_run(needs, code, tracked, capsys):
    if needs == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    # As in a file of its own, but in this process: it takes seconds to start one.
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    if "print(" in code:
        # The thermostat has learned: untrained it is several degrees off.
        assert float(capsys.readouterr().out) > -2


def test_the_page_on_endings_has_a_task_that_is_learned(capsys):
    page = (ROOT / "docs" / "endings.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    torch.manual_seed(0)
    exec(compile(code, "endings.md", "exec"), {"__name__": "__main__"})
    # To the right in most episodes; untrained, half of them are.
    returns, lengths = map(float, capsys.readouterr().out.split())
    assert returns > 0.8
    assert lengths < 9


def test_there_are_snippets():
    assert len(SNIPPETS) >= 8


def test_the_quoted_error_is_the_real_one():
    from rlstack import Algorithm, EnvError

    code = next(code for _, _, code in SNIPPETS if "class Thermostat" in code)
    names: dict[str, object] = {}
    exec(code.split("\n\n\nalgo")[0], names)

    class Wrong(names["Thermostat"]):
        def step(self, action):
            out = super().step(action)
            return {"obs": out["obs"], "rewards": out["rewards"].squeeze(-1)}

    Wrong.__name__ = "Thermostat"
    with pytest.raises(EnvError) as error:
        Algorithm(Wrong, num_envs=256).collect()
    assert str(error.value) in README


def test_commands_name_real_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$|`make (\w+)`", README, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE)


def test_links_lead_somewhere():
    for text, place in ((README, ROOT), (LOOP, ROOT / "docs")):
        for link in re.findall(r"\]\(([^)]+)\)", text):
            assert (place / link).exists(), link
