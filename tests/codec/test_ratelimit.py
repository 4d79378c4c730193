from __future__ import annotations

from gateway.codec import ratelimit
from gateway.quota import Quota


def test_every_quota_is_an_item_of_both_fields() -> None:
    quotas = [
        Quota("streams", 2, "concurrent-requests", None, 0, None),
        Quota("starts", 100, "requests", 60, 40, 12.1),
        Quota("bytes", 5000, "content-bytes", 60, 0, 60.0),
    ]
    assert ratelimit.fields(quotas) == {
        "RateLimit-Policy": '"streams";q=2;qu="concurrent-requests", "starts";q=100;w=60, "bytes";q=5000;qu="content-bytes";w=60',
        "RateLimit": '"streams";r=0, "starts";r=40;t=13, "bytes";r=0;t=60',
    }


def test_without_a_quota_there_is_no_field() -> None:
    assert ratelimit.fields([]) == {}
