"""What is wrong with endings, found before training."""

import pytest
import torch

from rlstack.env import CartPoleV1, check_env
from tests.helpers import Counting


class Good(Counting):
    """Episodes of three steps and more, told by their age."""


class NotPutBack(Counting):
    def put_back(self, ended):
        return self.age


class ShownTooEarly(Counting):
    def said(self, out):
        return {**out, "final_obs": out["obs"]}


class NoNumber(Counting):
    def said(self, out):
        return {**out, "final_obs": out["final_obs"] / 0 * 0}


class Seldom(Counting):
    def said(self, out):
        if not out["terminated"].any():
            del out["terminated"]
        return out


class Column(Counting):
    def said(self, out):
        return {**out, "terminated": out["terminated"].squeeze(-1)}


class Numbers(Counting):
    def said(self, out):
        return {**out, "terminated": out["terminated"].float()}


class Stopped(Counting):
    def said(self, out):
        return {**out, "truncated": torch.ones_like(out["truncated"])}


@pytest.mark.parametrize(
    ("env_cls", "said"),
    [
        (NotPutBack, "obs is the same as final_obs in all rows that ended: put those rows back"),
        (ShownTooEarly, "obs is the same as final_obs in all rows that ended"),
        (NoNumber, "final_obs of a row that ended is NaN or infinite"),
        (Seldom, "and the first step didn't: let every step return the same keys"),
        (Column, r"terminated has shape \[16\], expected \[16, 1\]"),
        (Numbers, "terminated has dtype torch.float32, expected torch.bool"),
    ],
)
def test_faults(env_cls, said):
    with pytest.raises(Exception, match=said):
        check_env(env_cls).raise_for_faults()


@pytest.mark.parametrize("env_cls", [Good, CartPoleV1])
def test_nothing_is_wrong(env_cls):
    report = check_env(env_cls)
    assert report.faults == []
    assert "its episodes end by themselves, set horizons_per_env_reset=-1" in report.resets


def test_episodes_of_one_step_are_noted():
    notes = [finding.said for finding in check_env(Stopped).findings if finding.level == "note"]
    assert "every episode of Stopped has one step only" in notes


def test_a_row_that_ends_again_and_again():
    class Stuck(Counting):
        def said(self, out):
            del out["final_obs"]
            return out

        def put_back(self, ended):
            return self.age

    with pytest.raises(Exception, match="ends in each of the last 3 steps: put a row back"):
        check_env(Stuck).raise_for_faults()
