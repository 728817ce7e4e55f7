"""What redaction costs a message, next to the specification's own seven expressions, and how it scales.

Messages are the near misses and the examples of the rules, padded with ordinary words to 200 characters,
and a traceback. Adversarial texts repeat what rules look for; where the time is linear, 1 MiB takes 16
times as long as 64 KiB.

Run: python -m benchmarks redaction
"""

from __future__ import annotations

import re
import statistics
import time
import traceback
from collections.abc import Callable

from techdeck_tasks.redaction import redact, sanitize_message
from techdeck_tasks.redaction.catalogue import RULES

PASSES = 7
SMALL, LARGE = 2**16, 2**20
PADDING = " while stage load of pipeline admissions was reading the second batch of rows from its source" * 3
SPECIFICATION = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"password[=:]?\s*\S+",
        r"api[_-]?key[=:]?\s*\S+",
        r"token[=:]?\s*\S+",
        r"secret[=:]?\s*\S+",
        r"jdbc:.*?password=\S+",
        r"AKIA[0-9A-Z]{16}",
        r"eyJ[a-zA-Z0-9_-]*\.eyJ[a-zA-Z0-9_-]*\.[a-zA-Z0-9_-]*",
    )
]
ADVERSARIAL = (
    "a", "a.", "1", "1 ", "a@", "://a:", "://:a/", "=", "key=", "key ", 'key="', 'token,"', "passpass=",
    "password is a", "--key ", '\\"key\\":\\"', "Bearer ", "Authorization: ", 'cookie="',
    "-----BEGIN A-----", "-----BEGIN A-----\nQUJD\n", "eyJ", "xoxb-", "Key (a)=(",
    "failing row contains (", "[parameters: (", "[sql: '", "input_value=a", '"loc":"input":',
    "KeyError: '", "%3d", "?sig=", "+1 ", "(1", "::", "01:", "AA11", "patient name: Aa ", "dob: 1/",
    "mrn a1", "aB3_", "aB3/", "[REDACTED]", "\n", "é", "İ", "(", "<key ", "{{", "mysql -", "mysql', '",
    "could not parse '", "pid|", "failure cases: ", "née le 1 ", "numero de cuenta 1 ", "(11) 1", "a%40b.",
    "s://:a@h;", "acme_live_a1", "| token ", "Pwd={a", "пароль: ",
)  # fmt: skip


def by_specification(message: str) -> str:
    for pattern in SPECIFICATION:
        message = pattern.sub("[REDACTED]", message)
    return message[:500] + "..." if len(message) > 500 else message


def a_traceback() -> str:
    try:
        int("nothing")
    except ValueError:
        return traceback.format_exc() * 8
    return ""


def microseconds(function: Callable[[str], str], messages: list[str]) -> tuple[float, float]:
    """Return median and 99th percentile over the messages, each at its best of several passes."""
    best = [float("inf")] * len(messages)
    for _ in range(PASSES):
        for place, message in enumerate(messages):
            begin = time.perf_counter_ns()
            function(message)
            best[place] = min(best[place], (time.perf_counter_ns() - begin) / 1000)
    return statistics.median(best), statistics.quantiles(best, n=100)[98]


def seconds(text: str) -> float:
    begin = time.process_time()
    redact(text)
    return time.process_time() - begin


def main() -> None:
    benign = [(text + PADDING)[:200] for rule in RULES for text in rule.benign]
    leaking = [(re.sub("[«»]", "", text) + PADDING)[:200] for rule in RULES for text in rule.leaks]
    print(f"{'µs per message':<34}{'seven expressions':>24}{'sanitize_message':>24}")
    for name, messages in (
        ("benign, 200 characters", benign),
        ("leaking, 200 characters", leaking),
        ("traceback", [a_traceback()] * 3),
    ):
        row = "".join(
            f"{median:>12.1f} p99 {p99:>7.0f}"
            for median, p99 in (
                microseconds(by_specification, messages),
                microseconds(sanitize_message, messages),
            )
        )
        print(f"{name:<34}{row}")
    print(f"\n{'redact, adversarial':<34}{'64 KiB':>12}{'1 MiB':>12}{'ratio':>12}")
    times = []
    for seed in ADVERSARIAL:
        small, large = (seconds((seed * (size // len(seed) + 1))[:size]) for size in (SMALL, LARGE))
        times.append((large / max(small, 1e-3), small, large, seed))
    for title, key in (("steepest", 0), ("slowest", 2)):
        ratio, small, large, seed = max(times, key=lambda row: row[key])
        print(f"{title + ' ' + repr(seed):<34}{small * 1000:>9.0f} ms{large * 1000:>9.0f} ms{ratio:>12.1f}")


if __name__ == "__main__":
    main()
