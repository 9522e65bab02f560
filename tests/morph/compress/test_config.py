"""Settings of compression that cannot be."""

import pytest

from morph.compress.config import CompressConfig
from morph.errors import ConfigError


def test_a_config_says_what_is_wrong():
    with pytest.raises(ConfigError, match="compress: there is no 'zip'; known are 'deep'"):
        CompressConfig(compress="zip")
    with pytest.raises(ConfigError, match="compress_steps must be at least 1, found 0"):
        CompressConfig(compress_steps=0)
