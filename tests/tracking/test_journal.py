"""The file that a run's metrics are written to."""

import json
import logging
import math
import tracemalloc
import zlib

import pytest

from rlstack.tracking.journal import JOURNAL, Journal, read_rows
from rlstack.tracking.metric_rows import MetricQueue, MetricRow


def row(step, **metrics):
    return MetricRow(1000 + step, step, {"env/total_steps": float(step), **metrics})


def steps(rows):
    return [each.step for each in rows]


@pytest.fixture
def path(tmp_path):
    return tmp_path / JOURNAL


def filled(path, count=5):
    journal = Journal(path)
    for step in range(1, count + 1):
        journal.append(row(step))
    return journal


def test_rows_are_lines_of_json(path):
    journal = Journal(path)
    journal.append(row(16, a=0.1, b=math.nan, c=-math.inf))
    said = json.loads(path.read_text(), parse_constant=pytest.fail)
    metrics = {"env/total_steps": 16.0, "a": 0.1, "b": None, "c": None}
    crc = zlib.crc32(json.dumps({"time": 1016, "step": 16, "metrics": metrics}).encode())
    assert said == {"time": 1016, "step": 16, "metrics": metrics, "crc": f"{crc:08x}"}
    [back] = read_rows(path)
    assert (back.time, back.step, back.metrics["a"]) == (1016, 16, 0.1)
    assert math.isnan(back.metrics["b"])


def test_rows_are_sent_in_their_order_and_once(path):
    journal = filled(path)
    assert len(journal) == 5
    assert steps(journal.peek(2)) == [1, 2]
    assert steps(journal.peek(2)) == [1, 2]
    journal.done()
    journal.append(row(6))
    assert steps(journal.peek(3)) == [3, 4, 5]
    journal.done()
    assert (len(journal), steps(journal.peek(100))) == (1, [6])
    journal.done()
    assert (len(journal), journal.peek(100)) == (0, [])


def test_one_row_is_peeked_at_however_wide_it_is(path):
    journal = Journal(path)
    journal.append(row(1, **{str(n): 0.0 for n in range(50)}))
    journal.append(row(2))
    assert steps(journal.peek(10)) == [1]


@pytest.mark.parametrize("upto", [0, 1, 3, 5, 9])
def test_skip(path, upto):
    journal = filled(path)
    journal.skip(upto)
    assert steps(journal.peek(100)) == list(range(upto + 1, 6))
    journal.rewind()
    assert steps(journal.peek(100)) == [1, 2, 3, 4, 5]


def test_skipped_rows_may_come_later(path):
    journal = filled(path, 3)
    journal.skip(5)
    assert journal.peek(100) == []
    for step in range(4, 8):
        journal.append(row(step))
    assert steps(journal.peek(100)) == [6, 7]
    journal.done()
    assert len(journal) == 0


def test_what_was_sent_is_not_sent_again_after_a_cut(path):
    journal = filled(path, 5)
    journal.peek(100)
    journal.done()
    journal.cut(2)
    for step in range(3, 8):
        journal.append(row(step))
    assert steps(journal.peek(100)) == [6, 7]


@pytest.mark.parametrize("upto", [-1, 0, 1, 3, 5, 9])
def test_cut(path, upto):
    journal = filled(path)
    journal.cut(upto)
    journal.append(row(10))
    kept = [*range(1, min(upto, 5) + 1), 10]
    assert steps(read_rows(path)) == kept
    assert steps(journal.peek(100)) == kept
    assert len(journal) == len(kept)


def test_rows_are_thinned_for_drawing(path):
    filled(path, 10)
    assert steps(read_rows(path, most=4)) == [1, 4, 7, 10]
    assert steps(read_rows(path, most=10)) == list(range(1, 11))
    assert steps(read_rows(path, most=1)) == [10]


def test_an_endless_line_takes_no_memory(path):
    filled(path, 2).close()
    with path.open("r+b") as file:
        file.seek(0, 2)
        file.write(b'{"time": 1, "step": 3, "metrics": {"a":')
        file.seek(2**30, 2)
        file.write(b"1}}\n")
    journal = Journal(path)
    journal.append(row(4))
    tracemalloc.start()
    assert steps(read_rows(path)) == [1, 2, 4]
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_what_a_killed_process_left_half_written_is_cut_off(path):
    filled(path).close()
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        complete = whole[:length].count(b"\n")
        assert steps(read_rows(path)) == list(range(1, complete + 1))
        journal = Journal(path)
        journal.append(row(99))
        journal.close()
        assert steps(read_rows(path)) == [*range(1, complete + 1), 99]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[1, 2]",
        '{"time": 1, "step": 3, "metrics": {"a": "b"}}',
        '{"time": 1, "step": 3, "metrics": {"a": [1]}}',
        '{"time": 1, "step": 3, "metrics": {}, "metrics": 4}',
        '{"time": 1, "step": -3, "metrics": {}}',
        '{"time": 1, "step": 3, "metrics": {"a": ' + "[" * 3000 + "]" * 3000 + "}}",
        '{"time": 1, "step": 99999999999999999999, "metrics": {}}',
    ],
)
def test_damaged_lines_are_left_out(path, line, caplog):
    filled(path, 2).close()
    with path.open("a") as file:
        file.write(line + "\n")
    journal = Journal(path)
    journal.append(row(4))
    assert steps(read_rows(path)) == [1, 2, 4]
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.journal"):
        assert steps(journal.peek(100)) == [1, 2, 4]
    said = f"{path}: 1 damaged rows are left out, the first in line 3"
    assert [record.getMessage() for record in caplog.records] == [said, said]
    journal.done()
    with path.open("a") as file:
        file.write(line + "\n")
    again = Journal(path)
    again.skip(4)
    assert again.peek(100) == []
    assert len(again) == 0


def test_how_many_rows_are_damaged_is_said_once(path, caplog):
    filled(path, 9).close()
    lines = path.read_text().splitlines(keepends=True)
    for number in (3, 4, 7):
        lines[number - 1] = lines[number - 1].replace("metrics", "metrix")
    path.write_text("".join(lines))
    said = f"{path}: 3 damaged rows are left out, the first in line 3"
    journal = Journal(path)
    for _ in range(20):
        journal.peek(1)
        journal.done()
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    assert steps(read_rows(path)) == [1, 2, 5, 6, 8, 9]
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    journal = Journal(path)
    # Of those that stay.
    journal.cut(6)
    assert steps(journal.peek(100)) == [1, 2, 5, 6]
    assert [record.getMessage() for record in caplog.records] == [said.replace("3 damaged", "2 damaged")]
    caplog.clear()
    Journal(path).cut(-1)
    assert caplog.text == ""


def without_crc(path):
    """Write a journal as versions before checksums did."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in x.items() if k != "crc"}) + "\n" for x in lines))


def test_a_flipped_bit_costs_one_row_and_none_after_it(path):
    filled(path).close()
    whole = path.read_bytes()
    ends = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for place in sorted({*range(0, len(whole), 5), *ends}):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        damaged = whole[:place].count(b"\n") + 1
        # Where the end of a line is damaged, both rows are there; without the last one a row is half written.
        lost = {damaged} if place not in ends[:-1] else set()
        assert steps(read_rows(path)) == sorted({1, 2, 3, 4, 5} - lost)
        journal = Journal(path)
        assert steps(journal.peek(1000)) == sorted({1, 2, 3, 4, 5} - lost)
        if place not in ends:
            journal.cut(3)
            assert steps(read_rows(path)) == sorted({1, 2, 3} - lost)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("step", ["9999999", "0"])
def test_damaged_steps_cost_no_other_row(path, old, step, caplog):
    filled(path).close()
    if old:
        without_crc(path)
    path.write_text(path.read_text().replace('"step": 3', f'"step": {step}'))
    assert steps(read_rows(path)) == [1, 2, 4, 5]
    journal = Journal(path)
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.journal"):
        assert steps(journal.peek(2)) == [1, 2]
        journal.done()
        assert steps(journal.peek(1000)) == [4, 5]
    said = f"{path}: 1 damaged rows are left out, the first in line 3"
    assert [record.getMessage() for record in caplog.records] == [said, said]
    journal.done()
    assert journal.peek(1000) == []
    journal.cut(4)
    assert steps(read_rows(path)) == [1, 2, 4]
    journal.cut(2)
    assert steps(read_rows(path)) == [1, 2]


def test_rows_without_a_checksum_are_read(path):
    filled(path).close()
    without_crc(path)
    assert "crc" not in path.read_text()
    journal = Journal(path)
    journal.append(row(6))
    assert steps(read_rows(path)) == steps(journal.peek(100)) == [1, 2, 3, 4, 5, 6]
    journal.cut(3)
    assert steps(read_rows(path)) == [1, 2, 3]


def test_rows_that_cannot_be_written_wait(path, monkeypatch, caplog):
    journal = filled(path, 1)

    # As a disk does that has some bytes left.
    put = journal._put
    monkeypatch.setattr(journal, "_put", lambda data: put(data[:7]))
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.journal"):
        journal.append(row(2))
        journal.append(row(3))
    assert caplog.text.count("rows wait in memory") == 1
    assert (steps(read_rows(path)), len(journal)) == ([1], 3)
    monkeypatch.setattr(journal, "_put", put)
    journal.append(row(4))
    assert steps(read_rows(path)) == [1, 2, 3, 4]
    assert not journal.thinned


def test_a_file_that_is_gone_stops_nothing(path, caplog):
    journal = filled(path, 1)
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING, logger="rlstack.tracking.journal"):
        journal.append(row(2))
        journal.append(row(3))
        journal.close()
    assert "rows wait in memory" in caplog.text
    assert "2 updates are not in" in caplog.text


def test_a_closed_journal_can_be_written(path):
    journal = filled(path, 2)
    journal.close()
    journal.append(row(3))
    assert steps(read_rows(path)) == [1, 2, 3]


def test_waiting_rows_are_thinned_evenly():
    waiting = MetricQueue(8)
    for step in range(1, 31):
        waiting.append(row(step))
    assert waiting.thinned
    assert steps(waiting.peek(1000, everything=False)) == [4, 8, 12, 16, 20, 24, 28]
    assert steps(waiting.peek(1000)) == [4, 8, 12, 16, 20, 24, 28, 30]
    waiting.done()
    assert len(waiting) == 0
