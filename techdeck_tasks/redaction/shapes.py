"""What a value looks like: random, trivial, prose, operational. Pure functions on short strings."""

# ruff: noqa: PLR2004 - thresholds are what this file is about

from __future__ import annotations

import re

# A value of these stands for the absence of a value, a type or a template: hiding it helps nobody.
_TRIVIAL = re.compile(
    r"""(?:
        none|null|nil|nul|nan|true|false|undefined|unset|empty|n/?a|yes|no|on|off|default|required|optional
      | str|string|int|integer|bytes?|bool|boolean|float|object|dict|list|array|secretstr|text|varchar
      | bearer|basic|digest|negotiate|missing|invalid|expired|redacted|hidden|masked|removed|filtered
      | [\W_]*                                   # punctuation only: ***, ..., {}, <>
      | [x*.•]{3,}                               # XXXX
      | %\(?\w{0,40}\)?[sdr]                     # %s, %(name)s
      | \$?\{{1,2}[^{}]{0,80}\}{0,2} | \$[a-z_]\w{0,60} | \$\([^()]{0,80}\)?
      | <[^<>]{0,80}>?
    )""",
    re.VERBOSE | re.IGNORECASE,
)

_WORD = re.compile(r"[A-Za-z][a-z]*(?:'[a-z]+)?|[A-Z]+")
# What validators say, and what sentences are held together by.
_VERDICTS = frozenset((
    "allowed", "blank", "cannot", "characters", "denied", "empty", "expected", "expired", "field", "found",
    "incorrect", "invalid", "least", "match", "missing", "must", "null", "provided", "recognized",
    "required", "revoked", "should", "unsupported", "valid", "wrong",
))  # fmt: skip
_FUNCTION_WORDS = frozenset((
    "a", "an", "and", "are", "as", "be", "but", "by", "for", "from", "has", "have", "in", "is", "it",
    "its", "not", "of", "on", "or", "that", "the", "this", "to", "was", "with",
))  # fmt: skip
# A single word after a label that tells its state rather than its value.
_STATES = frozenset((
    "absent", "accepted", "added", "and", "are", "as", "auth", "authentication", "authorization", "bad",
    "because", "blank", "bucket", "but", "cannot", "change", "changed", "check", "column", "configured",
    "contains", "correct", "decode", "decoded", "deleted", "denied", "differs", "disabled", "does",
    "empty", "endpoint", "error", "exchange", "exists", "expected", "expiration", "expired", "expires",
    "expiry", "failed", "failure", "field", "flag", "flow", "for", "format", "found", "generated",
    "generation", "given", "grant", "has", "have", "header", "here", "hidden", "ignored", "in",
    "incorrect", "instead", "invalid", "is", "issued", "issuer", "length", "limit", "limited", "lookup",
    "malformed", "manager", "mismatch", "mismatched", "missing", "must", "name", "need", "needs", "no",
    "not", "null", "of", "ok", "on", "only", "option", "or", "parameter", "parse", "parsing", "policy",
    "present", "protected", "provided", "provider", "ready", "received", "refresh", "refreshed",
    "rejected", "required", "requires", "reset", "response", "returned", "revoked", "rotated", "rotation",
    "safe", "secure", "service", "set", "settings", "short", "signature", "storage", "store", "stored",
    "string", "takes", "the", "to", "too", "type", "unavailable", "unexpected", "unknown", "unset",
    "unsupported", "updated", "used", "validation", "value", "verification", "verified", "version", "was",
    "weak", "were", "will", "with", "without", "wrong",
))  # fmt: skip

_JUDGED_CHARS = 64
_HASH_DIGITS = 32

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX = re.compile(r"(?:0x)?(?:[0-9a-f]+|[0-9A-F]+)")
_RUNS = re.compile(r"[a-z]+|[A-Z]+|[0-9]+")
_LETTER_DIGIT = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])")
_DIGIT = re.compile(r"\d")
_LICENCE = re.compile(r"(?:[A-Z0-9]{4,8}-){2,8}[A-Z0-9]{4,8}")
_SEGMENT = re.compile(r"[A-Za-z0-9]+")
# Things with digits and letters that name or locate something: no secrets.
_OPERATIONAL = re.compile(
    r"""(?:
        v?\d+(?:\.\d+)+(?:[-+.]?(?:a|b|rc|dev|post|alpha|beta|final|ga|snapshot|py|cp)[\w.]*)?   # 1.2.3rc1
      | \d{4}-\d\d-\d\d(?:[T ][\d:.,]+(?:Z|[+-][\d:]+)?)?                 # a day, a timestamp
      | [a-z]{2,12}[-_.]?\d{1,4}(?:[-_.](?:[a-z]{1,12}|\d{1,4})){0,4}       # sha256, utf-16-le, row_17
      | \d+(?:\.\d+)?\s?(?:ms|s|m|h|d|us|ns|b|k|kb|mb|gb|kib|mib|gib|px|st|nd|rd|th|%)   # 30s, 64kb
      | [\d.]+e[+-]?\d+                                                   # a float
      | 0x[0-9a-f]{1,16}                                                  # an address in memory
      | [a-z][a-z0-9+.-]{1,20}://\S*                                      # URLs have their own rules
      | (?:[a-z]:)?[\\/.~](?:[\w.@+ -]*[\\/])*[\w.@+ -]*                  # a path
      | [\w-]+(?:\.[\w-]+)*\.(?:cfg|crt|csv|go|html?|ini|java|js|json|key|log|parquet|pem|py|sh|so|sql|toml|ts
          |txt|xml|ya?ml)(?::\d+)?                                        # a file
      | [\w-]+(?:\.[\w-]+)*:\d{1,5}                                       # host:port
    )""",
    re.VERBOSE | re.IGNORECASE,
)


def is_trivial(value: str) -> bool:
    """Tell whether `value` stands for no value: `None`, `***`, `%s`, `${VAR}`, `<token>`."""
    return len(value) <= 100 and _TRIVIAL.fullmatch(value.strip()) is not None


def is_prose(value: str) -> bool:
    """Tell whether `value` is a sentence about a value rather than the value: "This field is required."."""
    words = [word.strip(".,;:!?()'\"") for word in value[:200].split()]
    if len(words) < 2 or sum(_WORD.fullmatch(word) is not None for word in words) * 5 < len(words) * 4:
        return False
    lowered = {word.lower() for word in words}
    return not lowered.isdisjoint(_VERDICTS) or (len(words) >= 5 and not lowered.isdisjoint(_FUNCTION_WORDS))


def is_state(word: str) -> bool:
    """Tell whether the word after a label tells its state ("token expired") and not its value."""
    return word.strip(".,;:!?'\"()").lower() in _STATES


def is_plain_word(value: str) -> bool:
    """Tell whether `value` is one alphabetic word, lower-case, capitalised or upper-case."""
    return _WORD.fullmatch(value) is not None


def is_uuid(value: str) -> bool:
    """Tell whether `value` is a UUID in its dashed form."""
    return _UUID.fullmatch(value) is not None


def is_hex(value: str) -> bool:
    """Tell whether `value` is hexadecimal digits of one case."""
    return _HEX.fullmatch(value) is not None


def is_hash(value: str) -> bool:
    """Tell whether `value` has the form of a digest: 32 or more hexadecimal digits."""
    return len(value) >= _HASH_DIGITS and is_hex(value)


def is_operational(value: str) -> bool:
    """Tell whether `value` is a version, timestamp, path, file, host, size or numbered name."""
    return _OPERATIONAL.fullmatch(value) is not None


def looks_assigned(value: str) -> bool:
    """Tell whether a *labelled* value looks like a secret. Lenient: the label has raised the suspicion.

    True for eight or more characters that mix letters and digits (or cases) as names and prose do not.
    UUIDs and hashes count.
    """
    value = value[:_JUDGED_CHARS].rstrip(".,:;!?)")
    if len(value) < 8 or " " in value or is_operational(value):
        return False
    letters_digits = len(_LETTER_DIGIT.findall(value))
    if letters_digits:
        return letters_digits >= 2 or len(value) >= 14 or re.search(r"[^\w.-]", value) is not None
    if _DIGIT.search(value):
        digits = sum(map(str.isdigit, value))
        return digits >= 10 or re.search(r"[^\w.:,/ -]", value) is not None
    if _LICENCE.fullmatch(value):
        return True
    runs = [len(run) for run in _RUNS.findall(value)]
    return len(value) >= 10 and len(runs) >= 6 and sum(runs) / len(runs) <= 2.5


def _random_segment(segment: str) -> bool:
    """Judge one alphanumeric run of 15 or more characters without any label. Strict."""
    if len(segment) < 15 or _HEX.fullmatch(segment):
        return False
    runs = _RUNS.findall(segment)
    digits = sum(len(run) for run in runs if run[0] <= "9")
    has_upper = segment.upper() != segment.lower() and segment != segment.lower()
    has_lower = segment != segment.upper()
    if has_upper and has_lower:
        # Scattered digits speak for themselves; without them the letters must change case as no name does.
        scattered = sum(run[0] <= "9" for run in runs)
        least = 0.5 if len(segment) < 20 else 0.42 if scattered < 3 else 0.33
        longest_word = max(len(run) for run in runs if run[0] >= "a")
        if len(runs) / len(segment) < least or longest_word > 4 + scattered // 2 + len(segment) // 12:
            return False
        # Few digits: short words in CamelCase are dense as well, but begin with a single capital.
        capitals = [len(run) for run in runs if "A" <= run[0] <= "Z"]
        return digits >= 2 or sum(length > 1 for length in capitals) * 4 >= len(capitals)
    return (
        len(segment) >= 22
        and digits >= 3
        and len(runs) / len(segment) >= 0.25
        and digits < len(segment) * 0.7
    )


def looks_random(value: str) -> bool:
    """Tell whether an *unlabelled* token is random: no hash, UUID, path, or CamelCase name scores.

    Base62 of twenty characters switches between upper case, lower case and digits at about 60 % of its
    positions, CamelCase at 20 to 35 %: the rule asks for 42 %.
    """
    segments = _SEGMENT.findall(value)
    if any(map(_random_segment, segments)):
        return True
    joined = "".join(segments)
    if joined in {joined.lower(), joined.upper()}:
        return False  # dashed words and digits of one case are host and pod names
    if len(joined) < 28 or len(segments) > len(joined) // 7 or _UUID.search(value):
        return False
    return _random_segment(joined)
