"""Small samples of what `make prove` proves."""

from proofs import damage, kills


def test_damage(tmp_path):
    found = damage.prove(tmp_path, count=200)
    assert found["unnoticed"] == []


def test_kills(tmp_path):
    found = kills.kill_often(tmp_path, 3, seed=7, updates=120)
    assert found["faults"] == []
    assert found["kills"] >= 3
    assert found["while_saving"] >= 1
