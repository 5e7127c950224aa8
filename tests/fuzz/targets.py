"""All targets: importing this registers them."""

from __future__ import annotations

from tests.fuzz import analysed, booted, credentialed, imaged, sshed, stored
from tests.fuzz.registry import TARGETS, Target

PARTS = (stored, imaged, booted, sshed, credentialed, analysed)

__all__ = ["PARTS", "TARGETS", "Target"]
