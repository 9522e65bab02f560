from pathlib import Path

import jax
import pytest

from regularizers.calibration.machine import cache_path, device_name
from regularizers.user_cache import user_cache


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_path_names_device_and_versions(monkeypatch, home):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    plain = cache_path()
    assert jax.__version__ in plain.name
    assert plain.name.startswith(device_name(jax.local_devices()[0]).split()[0].lower()[:3])
    assert set(plain.stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    assert cache_path() != plain
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(cache_path()).startswith("/somewhere/.cache/morph/calibration/")


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert user_cache() is None
    assert cache_path() is None
