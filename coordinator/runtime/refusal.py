"""How a refusal travels from where it is made to the border that words it for a caller."""

from __future__ import annotations

from coordinator.core.decision import Rejected
from coordinator.core.reasons import Reason

Violation = tuple[str, str]  # field path, message


class Refusal(Exception):
    """A call is refused. Nothing has changed (or, for an unknown outcome, asking again is safe)."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        facts: tuple[tuple[str, str], ...] = (),
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.violations = violations
        self.facts = facts
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, rejected: Rejected) -> Refusal:
        """Wraps what the core answered."""
        violations = ((rejected.field, rejected.message),) if rejected.field else ()
        return cls(rejected.reason, rejected.message, violations=violations, facts=rejected.facts)

    @classmethod
    def of_fields(cls, violations: tuple[Violation, ...]) -> Refusal:
        """Fields of a request are at fault; the message tells the first of them."""
        text = "; ".join(f"{field}: {message}" for field, message in violations[:5])
        return cls(Reason.INVALID_ARGUMENT, text, violations=violations)
