from __future__ import annotations

import numpy as np
import pytest

from tests.bench import fcnet
from tests.bench.fcnet import DATA_SETS, PROTOCOLS, PUBLISHED, Figure


@pytest.fixture(scope="module", params=DATA_SETS)
def data_set(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _figure(name: str, data_set: str) -> Figure:
    return fcnet.figure([PROTOCOLS[name](net) for net in fcnet.slices(data_set)])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_protocols_come_out_as_published(data_set: str, name: str) -> None:
    found = _figure(name, data_set)
    published = PUBLISHED[name][DATA_SETS.index(data_set)]
    assert abs(found.regret - published) <= 3 * found.error + 0.0005  # 0.0005: the published ones are rounded


@pytest.mark.parametrize("data_set", ["parkinsons_telemonitoring", "naval_propulsion"])
def test_the_stages_are_no_worse_than_the_best_published(data_set: str) -> None:
    """The benchmark has all four."""
    found = _figure("default", data_set)
    best = min(figures[DATA_SETS.index(data_set)] for figures in PUBLISHED.values())
    assert found.regret <= best + 2 * found.error
    assert found.trainings <= 24


def test_a_table_holds_every_net(data_set: str) -> None:
    table = fcnet.load(data_set)
    assert table.shape == (5184, 2, 6, 4)
    assert np.isfinite(table).all()


def test_a_slice_gives_the_tables_values_and_rises_beyond_its_ends() -> None:
    net = next(fcnet.slices(DATA_SETS[0]))
    assert net.value(fcnet.LRS[2], "cosine", 1) == pytest.approx(net.values[1, 2, 1])
    outwards = [net.value(fcnet.LRS[0] / ratio, "constant", 0) for ratio in (1, 2, 4)]
    assert outwards == sorted(set(outwards))
