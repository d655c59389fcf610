"""Every rule, registered once, in the order of the table in docs/health.md.

A new rule is an entry of a module beside this one, and its name in `HealthRule` of
`electra_dist.config`, so that it can be left out.
"""

from __future__ import annotations

from electra_dist.health import learning, speed, stability
from electra_dist.health.rule import Rule

RULES: tuple[Rule, ...] = (*learning.RULES, *stability.RULES, *speed.RULES)
