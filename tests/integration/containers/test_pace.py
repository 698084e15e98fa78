"""How fast images come to a real engine from a registry."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from node_agent.cache.pace import LEAST_BYTES, Pace
from node_agent.runtime.images import Images
from node_agent.runtime.protocol import CannotStart
from tests.support.engine import Engine, root_file_system
from tests.support.registry import Registry

MORE = os.urandom(LEAST_BYTES).hex()


async def test_an_image_counts_where_all_of_it_came_once_for_all_that_wait_for_it(
    engine: Engine, registry: Registry
) -> None:
    pace = Pace()
    layer = root_file_system(more=MORE)
    for tag in ("paced", "paced-too"):  # of one layer
        registry.put(tag, layer, Labels={"tag": tag})
    with engine.client() as client:
        images = Images(client, pace)
        begun_s = time.monotonic()
        name = registry.name("paced")
        image, *others = await asyncio.gather(
            *(images.get(name, on_pull=lambda: None) for _ in range(3))
        )
        took_s = time.monotonic() - begun_s
        assert others == [image, image]
        assert image["Size"] > 2 * LEAST_BYTES
        total = pace.total
        assert total.size_bytes == image["Size"]
        assert 0 < total.time_s <= took_s
        assert pace.told_bytes_per_s > 0
        await images.get(name, on_pull=lambda: None)
        await images.get(registry.name("paced-too"), on_pull=lambda: None)
        with pytest.raises(CannotStart):
            await images.get(registry.name("paced-not-there"), on_pull=lambda: None)
        assert pace.total == total
        images.close()
