"""Values that a name next to them calls secret: `api_key = "..."`, `--token ...`, `<password>...</password>`.

`vocabulary` finds the name and how sensitive it is. One regular expression reads what joins it to its value,
plain code reads the value by the rules of its quoting and decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.quoting import end_before, end_of_quote, end_on_line
from techdeck_tasks.redaction.rule import REDACTED, Rule, Span, Subject
from techdeck_tasks.redaction.vocabulary import ANY_WORD, Sensitivity, find_words, prefix_of, sensitivity_of

_QUOTE = r"""\\{0,32}+["'`]|%2[27]|&quot;|&\#0?3[49];|\\{1,4}u002[27]"""
_FILLER = r"""(?:[ \t]{1,4}(?:provided|given|supplied|is|was|are|value|used|with|id|string|of|received|found
    |specified|named|set\ to|equal\ to|has\ value|sent|presented|ending\ in))"""

_JOINT = re.compile(
    rf"""(?P<tail>(?:(?!{ANY_WORD})[a-z0-9_-]){{0,40}}+)
    (?P<close>(?:{_QUOTE})?+) \]?+
    (?:
        # name="token" value="...", "token": {{"value": "..."}}, token {{ default = "..." }}
        (?P<attribute> \s{{0,8}}[,:=]?\s{{0,8}}\{{?\s{{0,8}}
            (?:{_QUOTE})? (?:value|val|default|content|data) (?:{_QUOTE})? \s{{0,2}}[:=]{{1,2}} )
        # token = ..., token: str = ..., "token" => ..., token%3D...
      | (?:[ \t]{{0,8}}:?[ \t]{{0,4}}(?:string|str|bytes|secretstr|optional\[str\]))? [ \t]{{0,16}}+
        (?P<operator> =>|:{{1,3}}=|\?{{1,2}}=|\|\|[:=]|[.+!]={{1,2}}|={{1,3}}|:(?![:/])|->|%3[ad] )
        (?P<block> [ \t]{{0,4}}[|>]-?(?=[ \t]{{0,4}}\n) )?
        # <token>...
      | (?P<tag> (?:\s[^<>]{{0,80}})?> )
        # put("token", "..."), | token | ... |
      | (?P<comma> ,|[ \t]{{1,8}}\|(?=[ \t]) )
        # --token ..., token provided: ...
      | (?P<gap> {_FILLER}{{0,3}}[ \t]{{0,4}}[:=]?(?=[ \t"'`(\\]) )
    )
    (?P<space>\s{{0,32}}+)
    (?: (?:[a-z_][\w.:]{{0,30}}\((?=[bru]?["']))? (?P<bracket>[\[(]\s{{0,4}})?
        [bruf]{{0,2}} (?P<quote>{_QUOTE}) )?+
    """,
    re.VERBOSE,
)
_BARE = re.compile(
    r"""(?:
        [^\s"'`<>,;&()\[\]{}\\]
      | \\(?![nrtu"'`\\])
      | [,;()\[\]{}](?=[^\s"'`<>=:,;&()\[\]{}\\]{2,64}+(?:[\s"'`.]|\Z))   # a comma inside a password
    )++""",
    re.VERBOSE,
)
_URLENCODED = re.compile(r"(?:[^\s\"'<>%&]|%(?!2[267c]|7d|0a))++", re.IGNORECASE)
_TEMPLATE = re.compile(r"\$?\{\{?[^{}\n]{0,80}\}\}?|\$\([^()\n]{0,80}\)|<[^<>\n]{0,80}>|%\(\w{1,40}\)s")
_BRACED = re.compile(r"\{([^{}\n]{4,80})\}(?=;|\Z)")  # ODBC quotes with braces: PWD={...};
_CODE = re.compile(
    r"""[A-Za-z_]\w{0,60}(?:\.[A-Za-z_]\w{0,60}){0,6}[(\[]
      | (?:self|cls|os|settings|config|cfg|conf|request|req|env|args|kwargs|options|app|ctx|context)
        \.[A-Za-z_]""",
    re.VERBOSE,
)
_VARIABLE = re.compile(r"_?[a-z]{2,16}(?:_[a-z]{2,16}){1,5}")
_LABEL_INSIDE = re.compile(ANY_WORD)
_NAME = re.compile(r"[A-Za-z][A-Za-z_.-]*")
_ASSIGNED_LIKE_PASSWORD = re.compile(r"(?=.*[A-Za-z])(?=.*[0-9!@#$%^&*+]).{6,}", re.DOTALL)
_JUDGED_CHARS = 128
_SMALL_NUMBER = 6


def find_labelled(subject: Subject) -> Iterator[Span]:
    """Yield the span of each value that its name calls secret."""
    text, folded, done = subject.text, subject.folded, 0
    for start, word in find_words(subject):
        joint = _JOINT.match(folded, start + len(word)) if start >= done else None
        if joint is None:
            continue
        # Reading no more than is judged keeps text full of labels linear.
        near = min(len(text), joint.end() + _JUDGED_CHARS)
        span = _read_value(text, joint, near)
        if span is None:
            continue
        value = text[span[0] : span[1]]
        level = sensitivity_of(text, folded, start, word, joint["tail"])
        if (
            not level
            or shapes.is_trivial(value)
            or not _Candidate(text, start, word, joint, value).is_secret(level)
        ):
            continue
        if span[1] >= near - 1:
            span = _read_value(text, joint, len(text)) or span
        done = span[1]
        yield span


def _read_value(text: str, joint: re.Match[str], limit: int) -> Span | None:  # noqa: PLR0911 - one per notation
    """Return where the value after a joint starts and ends, before `limit`, or None where there is none."""
    start, quote = joint.end(), joint["quote"]
    if start >= limit or text.startswith(REDACTED, start):
        return None
    if "\n" in joint["space"] and not (quote or joint["tag"] or joint["block"]):
        return None
    if joint["tag"]:
        return start, end_before(text, start, "<", limit)
    if quote and joint["bracket"]:
        return start - len(quote), end_on_line(text, start, "]" if "[" in joint["bracket"] else ")", limit)
    if quote:
        return start, end_of_quote(text, start, text[joint.start("quote") : joint.end("quote")], limit)
    if text[start] in "[(" and joint["operator"]:
        return None
    if (braced := _BRACED.match(text, start, limit)) and _ASSIGNED_LIKE_PASSWORD.match(braced[1]):
        return braced.span(1)
    if template := _TEMPLATE.match(text, start, limit):
        start = template.end()
    encoded = (joint["operator"] or "").startswith("%")
    bare = (_URLENCODED if encoded else _BARE).match(text, start, limit)
    end = start + len(bare[0].rstrip(".,:;!?")) if bare else start
    return (start, end) if end > start else None


class _Candidate:
    """A name, its joint and its value, to be judged together."""

    __slots__ = ("joint", "prefix", "start", "text", "value", "word")

    def __init__(self, text: str, start: int, word: str, joint: re.Match[str], value: str) -> None:
        self.text, self.start, self.word, self.joint = text, start, word, joint
        self.value = value
        self.prefix = prefix_of(joint.string, start)

    def is_secret(self, level: Sensitivity) -> bool:  # noqa: C901, PLR0911 - one return per notation
        """Decide whether the value must go, under a name of this level."""
        joint, value = self.joint, self.value
        if level is Sensitivity.RANDOM:
            return (
                not joint["tag"]
                and " " not in value
                and (shapes.looks_random(value) or shapes.is_hash(value))
            )
        if joint["comma"]:
            if self.prefix.startswith("--"):
                return not value.startswith("-")
            is_cell = joint["comma"] != "," and level >= Sensitivity.SECRET
            named = bool(joint["close"]) or is_cell
            return named and (
                shapes.looks_assigned(value) or (level is Sensitivity.PASSWORD and self._is_pair())
            )
        if joint["tag"]:
            opening = self.text[max(0, self.start - len(self.prefix) - 1)]
            if opening in "\"'":  # <entry key="db.password">...</entry>, but also <label for="password">
                return shapes.looks_assigned(value) or _ASSIGNED_LIKE_PASSWORD.fullmatch(value) is not None
            return opening in "<:" and (level is Sensitivity.PASSWORD or shapes.looks_assigned(value))
        if joint["gap"] is not None:
            return self._is_secret_in_prose(level)
        if not (joint["quote"] or joint["attribute"]) and self._is_source(level):
            return False
        if level is Sensitivity.ASSIGNED:
            return self._looks_assigned()
        if level is Sensitivity.SECRET and value.isdigit() and len(value) < _SMALL_NUMBER:
            return False
        if joint["quote"] or joint["attribute"]:
            return not shapes.is_prose(value)
        return joint["operator"] not in {":", "%3a"} or self._is_secret_after_colon(level)

    def _is_source(self, level: Sensitivity) -> bool:
        """Tell a line of source, as tracebacks show it, by a call, a lookup or a variable behind the sign."""
        if _CODE.match(self.text, self.joint.end()):
            return True
        own = f"{self.prefix.rpartition('.')[2]}{self.word}{self.joint['tail']}"
        last = self.value.lower().rpartition(".")[2]
        return last == own or (level <= Sensitivity.SECRET and _VARIABLE.fullmatch(self.value) is not None)

    def _is_pair(self) -> bool:
        """Tell whether name and value are an item of a mapping: `[('password', 'mongoose'), ...]`."""
        before = self.text[: self.start - len(self.prefix)].rstrip("\"'bu")[-3:]
        after = self.text[self.joint.end() + len(self.value) :][1:2]
        return bool(self.joint["quote"]) and before.endswith(("[(", ", (", "{(")) and after == ")"

    def _looks_assigned(self) -> bool:
        # "key: 8a08..." is an identifier where nothing says whose key it is.
        if self.prefix in {"", "."} and not self.joint["quote"] and _is_identifier(self.value):
            return False
        # In <add key="LedgerPassword" value="..."> the first value is itself a label.
        is_label = _NAME.fullmatch(self.value) and _LABEL_INSIDE.search(self.value.lower())
        return not is_label and shapes.looks_assigned(self.value)

    def _is_secret_after_colon(self, level: Sensitivity) -> bool:
        """Judge `password: value` without quotes, where a sentence may follow instead of a value."""
        value = self.value
        if not shapes.is_plain_word(value):
            return level is Sensitivity.PASSWORD or not shapes.is_operational(value)
        after = self.joint.end() + len(value)
        rest = self.text[after : after + 2]
        ends = not rest or rest[0] in "\r\n,;}\"'\\" or (rest[0] == "." and not rest[1:].isalnum())
        return ends and not shapes.is_state(value)

    def _is_secret_in_prose(self, level: Sensitivity) -> bool:  # noqa: PLR0911 - a list of cases
        """Judge a value that only a space, or words as in "API key provided: ...", joins to its name."""
        value, gap = self.value, self.joint["gap"].strip()
        if self.prefix.startswith("-") and not self.joint["close"]:
            return not value.startswith("-") and not shapes.is_state(value)
        if level is Sensitivity.ASSIGNED:
            return shapes.looks_assigned(value) and (bool(self.prefix) or not _is_identifier(value))
        if self.word != "pass" and shapes.looks_assigned(value):
            return True
        if (
            level is not Sensitivity.PASSWORD
            or (self.word == "pass" and not self.prefix)
            or shapes.is_state(value)
        ):
            return False
        if self.joint["quote"] and self.word != "secret":
            return not shapes.is_prose(value)
        if _ASSIGNED_LIKE_PASSWORD.match(value) and not shapes.is_operational(value):
            return True
        after = self.joint.end() + len(value)
        line_ends = self.text[after : after + 1] in {"", "\n", "\r"}
        begins_line = self.start == 0 or self.text[self.start - 1] == "\n"
        return line_ends and (gap in {"is", "was", "set to"} or (begins_line and not gap))


def _is_identifier(value: str) -> bool:
    return shapes.is_uuid(value) or shapes.is_hex(value)


LABELLED = Rule(
    name="labelled-value",
    reason="A value named password, token, secret, key or the like, in any notation.",
    find=find_labelled,
    leaks=(
        "password=«hunter2»",
        "password:«mongoose»",
        "user root\npassword «mongoose»",
        'api_key = "«q9w8e7r6t5»"',
        "{'db_password': '«one two three»', 'db': 'audit'}",
        r"payload {\"client_secret\": \"«abc-def-ghi»\"} refused",
        "Incorrect API key provided: «k9d8f7g6h5j4k3l2».",
        "credentials «ab12cd34ef56» do not exist in our records",
        'System.setProperty("SERVICE_TOKEN", "«9f8e7d6c5b4a3f2e»")',
        "<password>«tr0ub4dor»</password>",
        '<add key="Password" value="«Mongoose»" />',
        "deploy --password «horse» --region eu",
        "export GRAPH_SECRET=«blue42»",
        "callback?state=1&access_token=«ya77ab99»&page=2",
        "body=grant&client_secret%3D«ab12cd»%26scope%3Dread",
        "serviceKey := `«aaaabbbb1111cccc»`",
        "ALTER ROLE app IDENTIFIED BY '«swordfish»'",
        "the password is «swordfish»",
        "mot de passe : «swordfish»",
        "contraseña: «swordfish»",
        "пароль: «swordfish»",
        '"db_password": {"value": "«one two»"}',
        'variable service_token { default = "«ab12cd34»" }',
        'API_TOKEN ::= "«ab12cd34»"',
        "| api_token | «9f8e7d6c5b4a3f2e» |",
        "OrderedDict([('password', '«mongoose»'), ('port', 1)])",
        '<entry key="db.password">«tr0ub4dor»</entry>',
        'let api_token = String::from("«ab12cd34»");',
        "Driver=x;Uid=app;Pwd={«tr0ub4dor»};",
        "bind_pw = «mongoose»",
    ),
    benign=(
        "token expired",
        "password must be at least 8 characters",
        "unexpected token '<' in JSON at position 0",
        "secret not found",
        "token bucket is empty, slow down",
        "max_tokens=4096 exceeded",
        "KeyError: 'LEDGER_PASSWORD'",
        "invalid token: unexpected end of file",
        "password = None",
        "token=${SERVICE_TOKEN}",
        "{'password': ['This field is required.']}",
        "password_policy=strict",
        "password is required",
        "bypass=true, compass: north, key 3f1c9a7be04d52861e7fb09c4d8a6235e1907bfc",
        'column "token" of table "grants" may not be null',
        "duplicate primary key: 5f0c2a77-19e4-4c1b-8d3a-6b7e9f015c42",
        "option --access-token requires a value",
        "api_token: str | None = None",
        '<label for="password">Password</label>',
        "getattr(user, 'password', 'default')",
        "Pwd={password};",
        "key = base64.urlsafe_b64decode(key)",
        "connect(token=identity_token, password=conninfo.password)",
        "session.identity_token = shard_id",
        "il passe: vite",
    ),
)
