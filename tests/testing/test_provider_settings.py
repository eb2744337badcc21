"""`Provider[Settings]`: the settings of a provider, for the command line and for a type checker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import attrs

import wasmlet
from wasmlet.provider import NoConfig

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Settings:
    lamps: int = wasmlet.option(3, help="How many lamps.")


@attrs.frozen
class MoreSettings(Settings):
    doors: int = wasmlet.option(1, help="How many doors.")


class Lamps(wasmlet.Provider[Settings]):
    name: ClassVar[str] = "lamps"


class Doors(Lamps):
    Config: ClassVar[type[Settings]] = MoreSettings


class Plain(wasmlet.Provider):
    name: ClassVar[str] = "plain"


def test_settings_are_named_once() -> None:
    assert (Lamps.Config, Doors.Config, Plain.Config) == (Settings, MoreSettings, NoConfig)


CODE = """
import attrs
import wasmlet

@attrs.frozen
class Settings:
    lamps: int = wasmlet.option(3, help="How many lamps.")

class Lamps(wasmlet.Provider[Settings]):
    name = "lamps"
    def count(self) -> int:
        return self.config.lamps
    def wrong(self) -> str:
        return str(self.config.doors)

class Plain(wasmlet.Provider):
    name = "plain"
"""


def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    program = tmp_path / "lamps.py"
    program.write_text(CODE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", program], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    errors = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if ": error: " in line]
    assert errors == ['error: "Settings" has no attribute "doors"  [attr-defined]'], done.stdout + done.stderr
