import pytest
import torch

from rlstack import specs
from rlstack.ppo.rollout_buffer import RolloutBuffer, Sequences, microbatches, minibatches

CPU = torch.device("cpu")
B, T = 3, 8


def filled(seq_len):
    state_spec = specs.Composite(h=specs.Unbounded((1,))) if seq_len > 1 else None
    buffer = RolloutBuffer(
        specs.Unbounded((2,)),
        torch.zeros(1, 1, dtype=torch.int64),
        state_spec,
        num_envs=B,
        horizon=T,
        seq_len=seq_len,
        device=CPU,
    )
    # Every number says where it belongs: 100 t + b.
    where = 100 * torch.arange(T + 1).view(-1, 1, 1) + torch.arange(B).view(1, -1, 1)
    buffer.obs.copy_(where.expand(-1, -1, 2))
    buffer.drawn.copy_(where[:-1])
    buffer.logp.copy_(where[:-1])
    buffer.values.copy_(where)
    if buffer.states is not None:
        buffer.states["h"].copy_(where[:-1:seq_len])
    place = where[:-1, :, 0].T.float()
    sequences = Sequences(buffer)
    sequences.fill(place + 0.25, place + 0.5)
    return buffer, sequences


@pytest.mark.parametrize("seq_len", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["slice", "tensor"])
def test_everything_of_a_sequence_stays_together(seq_len, kind):
    buffer, sequences = filled(seq_len)
    assert len(sequences) == buffer.num_sequences == B * T // seq_len
    index = slice(0, len(sequences)) if kind == "slice" else torch.randperm(len(sequences))
    obs, state = sequences.observations(index)
    starts = obs[:, 0, 0]
    expected = starts.view(-1, 1) + 100 * torch.arange(seq_len)
    assert torch.equal(obs, expected.unsqueeze(-1).expand(-1, -1, 2))
    assert torch.equal(sequences.drawn(index), expected.view(-1, 1).long())
    loss_inputs = sequences.loss_inputs(index)
    for name, offset in (("old_logp", 0), ("old_values", 0), ("advantages", 0.25), ("returns", 0.5)):
        assert torch.equal(getattr(loss_inputs, name), expected.view(-1, 1) + offset)
    if seq_len > 1:
        assert torch.equal(state["h"].flatten(), starts)
    # All of the buffer, once, and sequences start where states are kept.
    assert len(starts.unique()) == len(sequences)
    assert (starts // 100 % seq_len == 0).all()


@pytest.mark.parametrize(
    ("total", "size", "shuffle"), [(12, 12, True), (12, 4, True), (12, 4, False), (12, 1, True)]
)
def test_minibatches_cover_everything_once(total, size, shuffle):
    parts = [torch.arange(total)[part] for part in minibatches(total, size, shuffle=shuffle, device=CPU)]
    assert [len(part) for part in parts] == [size] * (total // size)
    whole = torch.cat(parts)
    assert whole.sort().values.tolist() == list(range(total))
    assert (whole.tolist() == list(range(total))) == (not shuffle or size == total)


@pytest.mark.parametrize("index", [slice(3, 13), torch.arange(3, 13)])
@pytest.mark.parametrize("size", [1, 3, 10, 99])
def test_blocks_cover_an_index_in_order(index, size):
    parts = [torch.arange(100)[part] for part in microbatches(index, size)]
    assert torch.cat(parts).tolist() == list(range(3, 13))
    assert max(len(part) for part in parts) == min(size, 10)


@pytest.mark.parametrize(
    ("name", "where", "expected"),
    [
        ("obs", (0, 2), ("obs", -1, 2)),
        ("obs", (3, 1), ("obs", 2, 1)),
        ("rewards", (2, 1), ("rewards", 2, 1)),
        ("values", (2, 0), ("values", 2, 0)),
        ("logp", (4, 0), ("logp", 4, 0)),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_nonfinite(name, where, expected, value):
    buffer, _ = filled(1)
    assert buffer.is_sound()
    assert buffer.first_nonfinite() is None
    getattr(buffer, name)[where] = value
    assert not buffer.is_sound()
    assert buffer.first_nonfinite() == expected


def test_the_cause_is_named_before_its_consequences():
    buffer, _ = filled(1)
    buffer.obs[3:, 1] = buffer.values[3:, 1] = buffer.rewards[3:, 1] = float("nan")
    assert buffer.first_nonfinite() == ("obs", 2, 1)
    buffer.values[2, 1] = float("nan")
    assert buffer.first_nonfinite() == ("values", 2, 1)


def test_nested_observations_are_named_by_their_path():
    spec = specs.Composite(a=specs.Composite(b=specs.Unbounded((2,)), c=specs.Categorical(2, shape=(1,))))
    buffer = RolloutBuffer(spec, torch.zeros(1, 1), None, num_envs=B, horizon=T, seq_len=1, device=CPU)
    buffer.obs["a", "b"][1, 2, 0] = float("nan")
    assert buffer.first_nonfinite() == ("obs.a.b", 0, 2)
