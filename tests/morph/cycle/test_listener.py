"""Nobody need listen."""

from morph.cycle.listener import Listener, Silence


def test_silence_hears_all_that_a_listener_hears():
    heard = {name for name in vars(Listener) if not name.startswith("_")}
    assert heard == {"seed", "phase", "update"} == {n for n in vars(Silence) if n[0] != "_"}
    listener: Listener = Silence()
    assert listener.seed({"a": 5}) is None
    assert listener.phase("shrink", 80) is None
    assert listener.update(3, loss=0.5) is None
