"""All targets: importing this registers them."""

from __future__ import annotations

from tests.fuzz import booted, credentialed, imaged, sshed, stored
from tests.fuzz.registry import TARGETS, Target

PARTS = (stored, imaged, booted, sshed, credentialed)

__all__ = ["PARTS", "TARGETS", "Target"]
