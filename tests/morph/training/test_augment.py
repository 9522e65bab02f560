"""Augmentations do to images what their names say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from morph.training.augment import AUGMENTATIONS, augmented, mixup

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(1.0, 2.0, (16, 8, 11, 3)), jnp.float32)


def test_flips_mirror_some_images_and_leave_the_others(images):
    out = AUGMENTATIONS["flip"](KEY, images)
    mirrored = [bool((a == b[:, ::-1]).all()) for a, b in zip(out, images, strict=True)]
    same = [bool((a == b).all()) for a, b in zip(out, images, strict=True)]
    assert [not m for m in mirrored] == same
    assert 0 < sum(same) < 16


def test_crops_are_windows_of_the_padded_image(images):
    out = np.asarray(AUGMENTATIONS["crop"](KEY, images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = set()
    for i, image in enumerate(out):
        places = [
            (r, c)
            for r in range(3)
            for c in range(3)
            if (image == padded[i, r : r + 8, c : c + 11]).all()
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 4


def test_cutout_clears_one_rectangle(images):
    out = np.asarray(AUGMENTATIONS["cutout"](KEY, images))
    for image, before in zip(out, np.asarray(images), strict=True):
        rows, columns = ((image == 0.0).all(2).any(axis) for axis in (1, 0))
        gone = np.outer(rows, columns)
        assert 3 <= rows.sum() <= 5
        assert 3 <= columns.sum() <= 5
        np.testing.assert_array_equal(image, np.where(gone[..., None], 0.0, before))


def test_augmentations_follow_one_another_with_keys_of_their_own(images):
    both = augmented(["flip", "crop"])(KEY, images)
    first = AUGMENTATIONS["flip"](jax.random.fold_in(KEY, 0), images)
    second = AUGMENTATIONS["crop"](jax.random.fold_in(KEY, 1), first)
    np.testing.assert_array_equal(both, second)


def test_mixup_blends_neighbours(images):
    x, y, share = mixup(KEY, images, jnp.arange(16), 0.5)
    np.testing.assert_array_equal(y, [15, *range(15)])
    np.testing.assert_allclose(x[1], share * images[1] + (1 - share) * images[0], rtol=1e-6)
    assert 0.0 <= share <= 1.0
