import tracemalloc

import numpy as np
from numpy.typing import NDArray

from medreward.caches import ENTRY_BYTES, ByteCache


def test_what_was_used_last_stays_within_the_bytes() -> None:
    cache: ByteCache[NDArray[np.uint8]] = ByteCache(2 * (100 + ENTRY_BYTES))
    a, b, c = (np.full((100,), n, np.uint8) for n in range(3))
    cache.put("a", a)
    cache.put("b", b)
    assert cache.get("a") is a
    cache.put("c", c)
    assert cache.get("b") is None
    assert cache.get("a") is a
    assert cache.bytes == 2 * (100 + ENTRY_BYTES)


def test_an_array_larger_than_the_cache_is_not_kept() -> None:
    cache: ByteCache[NDArray[np.uint8]] = ByteCache(10)
    cache.put("a", np.zeros(11, np.uint8))
    assert cache.get("a") is None
    assert cache.bytes == 0


def test_many_small_arrays_take_no_more_memory_than_the_cache_may() -> None:
    cache: ByteCache[NDArray[np.float32]] = ByteCache(2_000_000)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(20_000):
        cache.put(f"{n:064d}", np.zeros((1, 6), np.float32))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2_400_000
