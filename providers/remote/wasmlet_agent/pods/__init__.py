"""The pods of an agent: `pods` has the calls, `held` what is known of each, `store` what is on disk."""

from __future__ import annotations
