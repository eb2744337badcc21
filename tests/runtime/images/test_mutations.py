"""Some mutated modules through compile and start; `make mutate` takes ten thousand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import wasmtime

from tests.runtime.images.mutate import mutate
from tests.runtime.images.mutations import joined, mutants, sections, seeds


@pytest.mark.timeout(600)
async def test_mutated_modules(tmp_path: Path, image: str) -> None:
    found = await mutate(tmp_path, image, 200, 1)
    assert found.broken == []
    assert found.made == 200
    assert found.compiled >= 20
    assert found.ran >= 10
    assert found.refused >= 1


def test_the_same_seed_makes_the_same_modules() -> None:
    def some(seed: int) -> list[bytes]:
        return list(itertools.islice(mutants(seed), 50))

    assert some(7) == some(7)
    assert some(7) != some(8)
    assert len(set(some(7))) > 40


def test_sections_are_told_apart() -> None:
    engine = wasmtime.Engine()
    for module in seeds():
        assert joined(sections(module), module) == module
    for module in seeds()[:-1]:
        wasmtime.Module.validate(engine, module)
