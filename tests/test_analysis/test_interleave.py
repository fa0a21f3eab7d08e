"""Measurements in turns."""
from plugconv_mm.analysis.interleave import interleaved


def test_interleaved_calls_every_candidate_in_each_round():
    calls, rounds = [], []
    results = interleaved({name: lambda name=name: calls.append(name) or len(calls) for name in 'abc'}, rounds=4,
                          warm_ups=1, after_round=lambda: rounds.append(len(calls)))
    assert rounds == [6, 9, 12, 15]
    assert all(sorted(calls[i:i + 3]) == ['a', 'b', 'c'] for i in range(3, 15, 3))
    assert len({tuple(calls[i:i + 3]) for i in range(3, 15, 3)}) > 1, 'always the same order'
    assert sorted(sum(results.values(), [])) == list(range(4, 16))
