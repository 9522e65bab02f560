import itertools

import numpy as np

from regularizers.calibration import timing


def test_rounds_are_medians_of_calls_that_fill_the_share():
    seconds = itertools.count(1)
    calls = []

    def timer(run):
        calls.append(run)
        return float(next(seconds))

    # Warm-ups say 1, 2. Round one: 3 warms a, then 4, 5; 6 warms b, then 7, 8. And so on.
    times = timing.interleaved(["a", "b"], seconds=8.0, rounds=2, timer=timer)
    assert times.tolist() == [[4.5, 10.5], [7.5, 13.5]]
    assert calls == [*"ab", *"aaa", *"bbb", *"aaa", *"bbb"]


def test_short_programs_are_called_more_often():
    calls = {"short": 0, "long": 0}

    def timer(run):
        calls[run] += 1
        return {"short": 0.01, "long": 1.0}[run]

    timing.interleaved(["short", "long"], seconds=2.0, rounds=2, timer=timer)
    assert calls["long"] == 1 + 2 * (1 + 2)
    assert 100 <= calls["short"] <= 105


def test_a_call_is_waited_for():
    run = timing.compiled(lambda x: x @ x, np.ones((3, 3), np.float32))
    assert timing.timed(run) > 0.0
    assert run().tolist() == [[3.0] * 3] * 3
