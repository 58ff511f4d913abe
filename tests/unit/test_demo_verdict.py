"""The demo fails when the loop ran but what came out of it is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from drip.errors import VerifyError

demo = pytest.importorskip("drip.demo", reason="needs the compiled core: make setup")

GOOD = {"retained_verified": True, "device_model_after": "ab", "pushed_model": "ab"}


def test_a_good_run_passes() -> None:
    demo._judge(GOOD)


@pytest.mark.parametrize(
    ("spoilt", "says"),
    [
        ({"retained_verified": False}, "frames in the store"),
        ({"device_model_after": "cd"}, "does not run the model"),
    ],
)
def test_a_wrong_outcome_is_an_error(spoilt: dict[str, Any], says: str) -> None:
    with pytest.raises(VerifyError, match=says):
        demo._judge(GOOD | spoilt)
