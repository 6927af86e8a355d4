"""Pixel maps: the published window against a slow loop, and what must not change a result."""

import numpy as np
import pytest

from physml.errors import ConfigError, DataError
from physml.neutrino import pixelmaps as pm
from physml.neutrino.events import Hits

N = 40


def hits_of(event, plane, cell, energy, particle=None):
    event = np.asarray(event, np.int32)
    particle = np.zeros(len(event)) if particle is None else particle
    return Hits(
        event, np.asarray(plane, np.int32), np.asarray(cell, np.int32),
        np.asarray(energy, np.float32), np.ones(len(event), np.float32),
        np.asarray(particle, np.int32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def hits():
    """Steep and shallow lines with noise; some leave the window, some cells are hit twice."""
    random = np.random.default_rng(0)
    counts = random.integers(1, 160, N)
    counts[[3, 17]] = 0
    event = np.repeat(np.arange(N), counts)
    along = np.concatenate([np.arange(c) for c in counts])
    plane = random.integers(0, 300, N)[event] + along * random.integers(1, 4, N)[event]
    cell = 190 + (along * random.normal(0, 0.8, N)[event]).astype(int)
    cell += random.integers(-1, 2, len(event))
    energy = random.exponential(0.03, len(event)) + 0.002
    return hits_of(event, plane, cell.clip(0, 383), energy, random.integers(-1, 5, len(event)))


def slow_maps(hits, n, full_scale, planes, cells):
    """One pixel at a time; also the hits out of the window along and across, and saturation."""
    images = np.zeros((n, 2, planes, cells))
    late = aside = 0
    for i in range(n):
        rows = np.flatnonzero(hits.event == i)
        if not len(rows):
            continue
        first = hits.plane[rows].min()
        inside = [k for k in rows if (hits.plane[k] - first) // 2 < planes]
        late += len(rows) - len(inside)
        for view in (0, 1):
            chosen = [k for k in inside if hits.plane[k] % 2 == view]
            middle = np.floor(np.median([hits.cell[k] for k in chosen])) if chosen else 0
            for k in chosen:
                cell = int(hits.cell[k] - middle + cells // 2)
                if 0 <= cell < cells:
                    images[i, view, (hits.plane[k] - first) // 2, cell] += hits.energy[k]
                else:
                    aside += 1
    levels = np.minimum(np.ceil(images * (255 / full_scale)), 255).astype(np.uint8)
    return levels, late, aside, int((images > full_scale).sum())


@pytest.mark.parametrize("setting", [(0.255, 100, 80), (0.05, 30, 24), (1.0, 7, 9)])
def test_window_and_losses_agree_with_a_slow_loop(hits, setting):
    expected, late, aside, saturated = slow_maps(hits, N, *setting)
    maps, lost = pm.pixel_maps(hits, N, *setting), pm.losses(hits, N, *setting)
    np.testing.assert_array_equal(pm.dense(maps), expected)
    assert late > 0 or setting[1] == 100
    assert lost.beyond_planes.sum() == late and lost.beyond_cells.sum() == aside
    assert lost.saturated.sum() == saturated
    pixel = pm.hit_pixels(hits, N, *setting[1:])
    everything = hits.energy.sum(dtype=float)
    assert lost.energy.sum() + hits.energy[pixel >= 0].sum(dtype=float) == pytest.approx(everything)


def test_planes_and_cells_of_one_known_event():
    """First plane 51 belongs to view 1; planes 249 and 250 are the last inside, 251 is not."""
    hits = hits_of([0] * 6, [51, 52, 249, 250, 251, 53], [10, 20, 10, 20, 10, 90], [0.01] * 6)
    maps = pm.pixel_maps(hits, 1)
    image = pm.dense(maps)[0]
    assert image[1, 0, 40] == image[0, 0, 40] == image[1, 99, 40] == image[0, 99, 40] == 10
    assert pm.losses(hits, 1).beyond_planes[0] == 1 and pm.losses(hits, 1).beyond_cells[0] == 1
    assert len(maps.pixel) == 4


def test_order_of_the_hits_and_place_in_the_detector_do_not_matter(hits):
    random = np.random.default_rng(1)
    order = np.lexsort((random.random(len(hits.event)), hits.event))
    moved = hits._replace(plane=hits.plane + 6, cell=hits.cell + 11)
    shuffled = Hits(*(column[order] for column in hits))
    for other in (moved, shuffled):
        for expected, found in zip(pm.pixel_maps(hits, N), pm.pixel_maps(other, N), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_dense_select_concatenate_return_the_same_events(hits):
    maps = pm.pixel_maps(hits, N)
    images = pm.dense(maps)
    back = pm.from_dense(images)
    for expected, found in zip(maps, back, strict=True):
        np.testing.assert_array_equal(found, expected)
    rows = np.array([5, 3, 3, N - 1, 0])
    np.testing.assert_array_equal(pm.dense(maps, rows), images[rows])
    np.testing.assert_array_equal(pm.dense(maps, slice(7, 20, 2)), images[7:20:2])
    joined = pm.concatenate([pm.select(maps, slice(0, 9)), pm.select(maps, np.arange(9, N))])
    np.testing.assert_array_equal(pm.dense(joined), images)
    assert pm.select(maps, np.zeros(0, int)).offsets.tolist() == [0]


def test_mirror_reflects_the_chosen_views(hits):
    maps = pm.pixel_maps(hits, N)
    flip = np.random.default_rng(2).random((N, 2)) < 0.5
    expected = pm.dense(maps)
    expected[flip] = expected[flip][..., ::-1]
    mirrored = pm.mirror(maps, flip)
    np.testing.assert_array_equal(pm.dense(mirrored), expected)
    assert all((np.diff(mirrored.pixel[a:b]) > 0).all()
               for a, b in zip(maps.offsets[:-1], maps.offsets[1:], strict=True))  # fmt: skip
    turned = pm.summed(pm.mirror(maps, np.ones((N, 2), bool)))
    np.testing.assert_allclose(turned.values, pm.summed(maps).values, atol=1e-9)


def test_summed_quantities_of_the_images(hits):
    maps = pm.pixel_maps(hits, N)
    names, values = pm.summed(maps)
    column = dict(zip(names, values.T, strict=True))
    images = pm.dense(maps).astype(float)
    for view in (0, 1):
        image = images[:, view]
        np.testing.assert_array_equal(column[f"hits_{view}"], (image > 0).sum(axis=(1, 2)))
        np.testing.assert_array_equal(column[f"energy_{view}"], image.sum(axis=(1, 2)))
        np.testing.assert_array_equal(column[f"brightest_{view}"], image.max(axis=(1, 2)))
        for axis, name in ((2, "planes"), (1, "cells")):
            for i, profile in enumerate(image.sum(axis=axis)):
                lit = np.flatnonzero(profile)
                extent = lit[-1] - lit[0] + 1 if len(lit) else 0
                assert column[f"{name}_{view}"][i] == extent
                spread = 0.0
                if len(lit):
                    mean = np.average(np.arange(len(profile)), weights=profile)
                    off = (np.arange(len(profile)) - mean) ** 2
                    spread = np.sqrt(np.average(off, weights=profile))
                assert column[f"spread_{name}_{view}"][i] == pytest.approx(spread, abs=1e-9)
    assert np.isfinite(values).all() and (values[3] == 0).all()


def test_patches_hold_every_lit_pixel_and_nothing_else(hits):
    maps = pm.pixel_maps(hits, N)
    found = pm.patches(maps, size=4, limit=200)
    rebuilt = np.zeros((N, 1000, 16), np.uint8)
    for i in range(N):
        place = found.place[i][found.mask[i]]
        assert (np.diff(place) > 0).all()
        rebuilt[i, place] = found.tokens[i][found.mask[i]]
    grid = rebuilt.reshape(N, 2, 25, 20, 4, 4).transpose(0, 1, 2, 4, 3, 5)
    np.testing.assert_array_equal(grid.reshape(N, 2, 100, 80), pm.dense(maps))
    assert found.tokens[found.mask].any(axis=1).all() and not found.tokens[~found.mask].any()
    assert not found.place[~found.mask].any() and not found.left_out.any()


def test_patches_do_not_depend_on_padding_nor_on_the_batch(hits):
    maps = pm.pixel_maps(hits, N)
    wide = pm.patches(maps, limit=200)
    needed = int(wide.mask.sum(axis=1).max())
    tight = pm.patches(maps, limit=needed)
    alone = pm.patches(pm.select(maps, np.array([7])), limit=needed)
    for some, all_of_it in zip(tight[:3], wide[:3], strict=True):
        np.testing.assert_array_equal(some, all_of_it[:, :needed])
    for one, all_of_it in zip(alone[:3], tight[:3], strict=True):
        np.testing.assert_array_equal(one[0], all_of_it[7])


def test_too_many_patches_are_refused_or_the_faintest_counted(hits):
    maps = pm.pixel_maps(hits, N)
    wide = pm.patches(maps, limit=200)
    needed = int(wide.mask.sum(axis=1).max())
    with pytest.raises(DataError, match=f"limit={needed}"):
        pm.patches(maps, limit=needed - 1)
    few = pm.patches(maps, limit=5, overflow="brightest")
    counts = wide.mask.sum(axis=1)
    np.testing.assert_array_equal(few.left_out, np.maximum(counts - 5, 0))
    for i in range(N):
        light = wide.tokens[i].sum(axis=1, dtype=int)
        best = np.sort(np.argsort(-light[: counts[i]], kind="stable")[:5])
        np.testing.assert_array_equal(few.place[i][few.mask[i]], wide.place[i][best])
        np.testing.assert_array_equal(few.tokens[i][few.mask[i]], wide.tokens[i][best])


def test_truth_of_a_pixel_is_that_of_its_strongest_hit():
    hits = hits_of(
        [0, 0, 0, 1], [4, 4, 6, 2], [9, 9, 9, 3], [0.01, 0.02, 0.01, 0.01], [0, 1, -1, 0]
    )
    maps = pm.pixel_maps(hits, 2)
    assert pm.pixel_truth(hits, np.array([13, 2212]), maps).tolist() == [2212, 0, 13]
    with pytest.raises(DataError, match="do not fit"):
        pm.pixel_truth(hits, np.array([13, 2212]), pm.select(maps, np.array([1, 0])))


@pytest.mark.parametrize("energy", [np.nan, np.inf, -0.001, 0.0])
def test_a_bad_energy_is_refused(energy):
    with pytest.raises(DataError, match=r"energy of hit 1 \(event 0\)"):
        pm.pixel_maps(hits_of([0, 0], [1, 2], [1, 1], [0.01, energy]), 1)


@pytest.mark.parametrize(
    "event, plane, cell, message",
    [
        ([0, 2], [1, 1], [1, 1], "events do not rise from 0 to 1"),
        ([1, 0], [1, 1], [1, 1], "events do not rise"),
        ([-1, 0], [1, 1], [1, 1], "events do not rise"),
        ([0, 0], [-1, 1], [1, 1], "negative"),
        ([0, 0], [1, 1], [1, -1], "negative"),
    ],
)
def test_hits_out_of_range_are_refused(event, plane, cell, message):
    with pytest.raises(DataError, match=message):
        pm.pixel_maps(hits_of(event, plane, cell, [0.01] * 2), 2)


def test_wrong_arguments_are_refused(hits):
    maps = pm.pixel_maps(hits, N)
    for setting in ({"full_scale": 0.0}, {"full_scale": np.nan}, {"planes": 0}):
        with pytest.raises(ConfigError, match=next(iter(setting))):
            pm.pixel_maps(hits, N, **setting)
    with pytest.raises(ConfigError, match="3 does not divide 100 x 80"):
        pm.patches(maps, size=3)
    for row in (-1, N):
        with pytest.raises(DataError, match=f"no row {row}"):
            pm.select(maps, np.array([0, row]))
    with pytest.raises(DataError, match="one shape"):
        pm.concatenate([maps, pm.pixel_maps(hits, N, planes=50)])
    with pytest.raises(DataError, match="uint8"):
        pm.from_dense(np.zeros((1, 2, 3, 4)))
    with pytest.raises(DataError, match=r"\(40, 2\)"):
        pm.mirror(maps, np.ones((N, 1), bool))


def test_no_hits_give_blank_maps():
    maps = pm.pixel_maps(hits_of([], [], [], []), 3)
    assert not pm.dense(maps).any() and not pm.summed(maps).values.any()
    assert (
        not pm.patches(maps).mask.any() and len(pm.losses(hits_of([], [], [], []), 3).energy) == 3
    )
