import numpy as np

from medreward.caches import ArrayCache


def test_what_was_used_last_stays_within_the_bytes() -> None:
    cache: ArrayCache[np.uint8] = ArrayCache(200)
    a, b, c = (np.full((100,), n, np.uint8) for n in range(3))
    cache.put("a", a)
    cache.put("b", b)
    assert cache.get("a") is a
    cache.put("c", c)
    assert cache.get("b") is None
    assert cache.get("a") is a
    assert cache.bytes == 200


def test_an_array_larger_than_the_cache_is_not_kept() -> None:
    cache: ArrayCache[np.uint8] = ArrayCache(10)
    cache.put("a", np.zeros(11, np.uint8))
    assert cache.get("a") is None
    assert cache.bytes == 0
