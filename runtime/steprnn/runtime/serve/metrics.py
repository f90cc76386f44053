"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Metrics:
    """Numbers since the start. Each has one writer: the scheduler's thread or the event loop."""

    rows_active: int = 0
    rows_waiting: int = 0
    batch_size: int = 0
    steps: int = 0
    step_seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rows_cancelled: int = 0
    answers: Counter[int] = field(default_factory=Counter)  # of POST /v1/completions, by status

    def text(self) -> str:
        """The text format, version 0.0.4."""
        samples: list[tuple[str, str, str, dict[str, float]]] = [
            ("rows_active", "gauge", "Rows in the batch.", {"": self.rows_active}),
            ("rows_waiting", "gauge", "Rows that wait for a place in it.", {"": self.rows_waiting}),
            ("batch_size", "gauge", "Rows that a step is paid for.", {"": self.batch_size}),
            ("steps_total", "counter", "Steps of the batch.", {"": self.steps}),
            ("step_seconds_total", "counter", "Time in them.", {"": self.step_seconds}),
            (
                "prompt_tokens_total",
                "counter",
                "Tokens of prompts that were read, or are.",
                {"": self.prompt_tokens},
            ),
            ("completion_tokens_total", "counter", "Tokens written.", {"": self.completion_tokens}),
            ("rows_cancelled_total", "counter", "Rows whose client went away.", {"": self.rows_cancelled}),
            (
                "requests_total",
                "counter",
                "Answers to POST /v1/completions.",
                {f'{{code="{code}"}}': count for code, count in sorted(self.answers.items())},
            ),
        ]
        lines = []
        for name, kind, words, values in samples:
            lines += [f"# HELP steprnn_{name} {words}", f"# TYPE steprnn_{name} {kind}"]
            lines += [f"steprnn_{name}{labels} {value}" for labels, value in values.items()]
        return "\n".join(lines) + "\n"
