"""Where the logs of pods are, and what goes with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from wasmlet.runtime.logs.files import of_pod, remove_of


@pytest.mark.parametrize("uid", ["2e", "a", "8c5dd2b4-6e1b-4b8e-9d2f-0a1b2c3d4e5f"])
def test_a_pod_takes_no_log_of_another_with_it(tmp_path: Path, uid: str) -> None:
    """Not even where its UID is the name of a directory of logs."""
    others = [tmp_path / f"{of_pod(f'other-{number}')}c.0.log" for number in range(2000)]
    assert len({path.parent for path in others}) == 256
    own = tmp_path / f"{of_pod(uid)}c.0.log"
    for path in (*others, own):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remove_of(tmp_path / of_pod(uid))
    assert not own.exists()
    assert all(path.exists() for path in others)
