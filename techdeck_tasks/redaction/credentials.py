"""Credentials whose notation gives them away: headers, URLs, command lines, key files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from techdeck_tasks.redaction import shapes
from techdeck_tasks.redaction.rule import REDACTED, Rule, Span, Subject, matching

_SCHEMES = (
    r"bearer|basic|digest|negotiate|ntlm|kerberos|token|api-?key|api-?token|oauth|hawk|aws4-hmac-sha256|aws|ssws|jwt|key"
    r"|googlelogin|sharedkey(?:lite)?|sharedaccesssignature|hmac|signature|mac|dpop|gssapi|scram-sha-256|vapid|genie"
    r"|genie-?key|bot|pve-?api-?token|private-token|sso-key|klaviyo-api-key|splunk|apikey|user|secret|hoba|mutual|x-\w{1,20}"
)
_HEADER = re.compile(
    rf"""(?<![a-z]) (?:proxy-|x-)?authorization (?P<close>\\{{0,8}}["'`])? \]? \s{{0,8}} (?:[:=]|=>|%3a|,(?=\s{{0,4}}\\{{0,8}}b?["']))
    [ \t]{{0,8}}+ b?(?P<quote>\\{{0,8}}["'`])? (?:(?P<scheme>{_SCHEMES})(?:[ \t+]|%20){{1,4}})?""",
    re.VERBOSE,
)
_COOKIE = re.compile(
    r"""(?<![a-z]) (?:set-)?cookies?2? (?P<close>\\{0,8}["'`])? \]? \s{0,8} (?:[:=]|=>|%3a)
    [ \t]{0,8}+ b?(?P<quote>\\{0,8}["'`])?""",
    re.VERBOSE,
)
_PARAMETERS = re.compile(r"[\w-]{1,40}=")
_NEWLINE = re.compile(r"[\r\n]|\\[rn]")
_VALUE = re.compile(r"[^\s\"'`,;<>()\[\]{}\\&]+")


def _quote_or_line_end(text: str, start: int, quote: str | None) -> int:
    newline = _NEWLINE.search(text, start)
    limit = newline.start() if newline else len(text)
    if quote:
        end = text.find(quote, start, limit)
        return limit if end < 0 else end
    return limit


def _find_authorization(subject: Subject) -> Iterator[Span]:
    """Yield the credentials of each Authorization header: the rest of its value, or its one token."""
    text, done = subject.text, 0
    for match in _HEADER.finditer(subject.folded):
        start = match.end()
        if start < done or text.startswith(REDACTED, start):
            continue
        if match["quote"]:
            done = _quote_or_line_end(text, start, text[match.start("quote") : match.end("quote")])
        elif _PARAMETERS.match(text, start) and match["scheme"]:
            # Unquoted lists (Digest, AWS4): up to the line's end or the quote around the whole header.
            line = _quote_or_line_end(text, start, None)
            before = text[match.start() - 1 : match.start()]
            done = text.rfind(before, start, line) if before in {'"', "'"} else line
            done = line if done < 0 else done
        else:
            value = _VALUE.match(text, start)
            done = value.end() if value else start
            if not match["scheme"] and (
                shapes.is_plain_word(text[start:done].rstrip(".")) or ":" in text[start:done]
            ):
                continue  # "authorization: denied for this user"
        if done > start and not shapes.is_prose(text[start:done][:200]):
            yield start, done


def _find_cookies(subject: Subject) -> Iterator[Span]:
    """Yield the content of each Cookie and Set-Cookie header that holds a name and a value."""
    text, done = subject.text, 0
    for match in _COOKIE.finditer(subject.folded):
        start = match.end()
        if start < done or text.startswith(REDACTED, start):
            continue
        quote = text[match.start("quote") : match.end("quote")] if match["quote"] else None
        done = _quote_or_line_end(text, start, quote)
        part = text[start : min(done, start + 256)]
        if "=" in part or shapes.looks_assigned(part):
            yield start, done


def _is_bearer_value(value: str) -> bool:
    return not (
        shapes.is_plain_word(value.rstrip(".,:;")) or shapes.is_state(value) or shapes.is_trivial(value)
    )


# Up to the last "@" of the authority: passwords hold "@", "," and ";" as they are more often than one would think.
_USERINFO = re.compile(
    r"://(?P<user>[^\s/?#\"'`<>@:]{0,256}+)(?P<colon>:?)(?P<password>[^\s/?#\"'`<>]{0,1024}+)"
)
_LOOSE_PASSWORD = re.compile(
    r"://[^\s/?#\"'`<>@:]{0,128}:(?P<password>[^\s\"'`<>@]{1,128}+)@(?=[A-Za-z0-9.-]{1,128}+(?:[:/\"'\s]|\Z))"
)


def _find_url_credentials(subject: Subject) -> Iterator[Span]:
    """Yield the password of each URL, or its user where that looks like a token."""
    text = subject.text
    for match in _USERINFO.finditer(text):
        if match["colon"]:
            at = match["password"].rfind("@")
            if at > 0:
                yield match.start("password"), match.start("password") + at
            elif (
                at < 0 and (loose := _LOOSE_PASSWORD.match(text, match.start())) and "/" in loose["password"]
            ):
                # "/", "?" or "#" inside the password. A port and a path ("host:80/a@b") is not one.
                if not loose["password"][0].isdigit() or not loose["password"].split("/")[0].isdigit():
                    yield loose.span("password")
        elif match["password"].startswith("@") and (
            shapes.looks_assigned(match["user"]) and not shapes.is_operational(match["user"])
        ):
            yield match.span("user")


_PEM_BEGIN = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,60}-----|---- BEGIN SSH2 [A-Z ]{1,40}----|PuTTY-User-Key-File-\d:"
)
_PEM_BODY = re.compile(
    r"""(?:\s|\\{1,8}[nrt]|["'+,\\]|%0[ad])*+
    (?:[A-Za-z][A-Za-z-]{1,30}:\ [^\n\\]{1,200}+ | [A-Za-z0-9+/=_-]{12,}+ | [A-Za-z0-9+/=]{1,80}(?=\s*\Z|\s*\\?n?-----|\\n["']) )""",
    re.VERBOSE,
)


def _find_pem(subject: Subject) -> Iterator[Span]:
    """Yield each PEM block from its first to its last line; without a last line, as far as it looks encoded."""
    text, done = subject.text, 0
    for begin in _PEM_BEGIN.finditer(text):
        if begin.start() < done:
            continue
        end = text.find("-----END ", begin.end())
        following = text.find("-----BEGIN ", begin.end())
        if end >= 0 and (following < 0 or end < following):
            close = text.find("-----", end + 9, end + 100)
            done = close + 5 if close >= 0 else len(text)
        else:
            done = begin.end()
            while body := _PEM_BODY.match(text, done):
                done = body.end()
        yield begin.start(), done


CREDENTIAL_RULES: tuple[Rule, ...] = (
    Rule(
        name="authorization-header",
        reason="Authorization carries the credential itself, in any scheme.",
        find=_find_authorization,
        hints=("authorization",),
        leaks=(
            "curl -H 'Authorization: Basic «dXNlcjpwYXNz»' https://api.test",
            "headers={'Authorization': 'Bearer «abc»', 'Accept': '*/*'}",
            'Authorization: Digest «username="mia", realm="x", response="6629fae49393a05397450978507c4ef1"»',
            "Authorization: Negotiate «YIIabc123»",
            "Authorization:«raw-value-1»",
        ),
        benign=(
            "authorization: denied for user 7",
            "missing Authorization header",
            "authorization failed: retry",
        ),
    ),
    Rule(
        name="bearer-value",
        reason="A bearer token is a credential wherever it is printed.",
        find=matching(
            r"(?i:\bbearer) (?:[ \t]|%20|\+){1,4} (?P<secret> [A-Za-z0-9._~+/=%|:@-]{6,}+)", _is_bearer_value
        ),
        words=("bearer",),
        leaks=("sent Bearer «abc-def-012» twice",),
        benign=("Bearer token missing", "bearer authentication is required"),
    ),
    Rule(
        name="basic-value",
        reason="Basic credentials are user and password in base64.",
        find=matching(
            r"\b[Bb]asic[ ](?P<secret>[A-Za-z0-9+/]{6,}+={0,2})",
            lambda value: not shapes.is_plain_word(value.rstrip(".,")) or value.endswith("="),
        ),
        words=("basic",),
        leaks=("challenge answered with Basic «dXNlcjpwYXNz»",),
        benign=("Basic authentication failed", "basic auth"),
    ),
    Rule(
        name="cookie-header",
        reason="Cookies hold sessions.",
        find=_find_cookies,
        words=("cookie", "cookies"),
        leaks=("Cookie: «sid=abc; theme=dark»", "{'Set-Cookie': '«id=7f; HttpOnly»'}"),
        benign=("cookie: not set", "cookies disabled"),
    ),
    Rule(
        name="url-credentials",
        reason="A URL's authority may hold user and password.",
        find=_find_url_credentials,
        hints=("://",),
        leaks=(
            "postgres://app:«p%23ss!»@db/audit",
            "redis://:«p,a;s@s»@localhost:6379/0",
            "https://«0123456789abcdef0123456789abcdef»@o1.ingest.test/2",
        ),
        benign=("ssh://git@host/repo", "http://host:8080/@scope/package", "amqp://guest@broker//"),
    ),
    Rule(
        name="bare-dsn-credentials",
        reason="Go and JDBC drivers write user:password@host without a scheme.",
        find=matching(
            r"""(?<![\w/.@-]) [A-Za-z][\w.-]{0,63}+ (?<!mailto) [:/] (?P<secret> [^\s:@/"'`<>()\[\]{},]{3,128}+ )
            @ (?!sha\d) (?: (?:tcp\(|unix\(|//)? (?=[A-Za-z0-9]) )""",
        ),
        hints=("@",),
        leaks=("dsn root:«hunter2»@tcp(db:3306)/audit", "jdbc:oracle:thin:app/«tiger»@//db:1521/x"),
        benign=("image nginx:1.25@sha256:0123", "sync with celery@worker", "npm install host/@scope"),
    ),
    Rule(
        name="url-parameter",
        reason="Presigned URLs and API keys stand in the query.",
        find=matching(
            r"""[?&;] (?i: (?:x-(?:amz|goog|oss|ms|cos)-)? (?:signature|credential|security-token|q-signature) | sig | key | auth | code | pass | pw
            | apikey | api_?key | api_?token | access_?key(?:_?id)? | awsaccesskeyid | googleaccessid | hmac | hash | sign | jwt | sid | session | subscription-key | appid
            | x-token | t(?:oken)? | policy | key-pair-id | s?hash | client_id | state | nonce | otp | user | u(?:ser)?name | login | email | phone | ssn | mrn | dob
            ) = (?P<secret> [^\s"'`<>&;\#\\)]{3,}+ )""",
            lambda value: not value.isdigit() or len(value) > 4,
        ),
        hints=("?", "&"),
        leaks=(
            "https://b.test/o?X-Amz-Credential=«AKID/20250101/eu/s3»&X-Amz-Signature=«0a1b2c»",
            "https://s.test/c?sv=2024-01-01&sig=«aB3%2Bx»",
        ),
        benign=("/v1/datasets?page=2&limit=50", "GET /x?sort=asc&state=12"),
    ),
    Rule(
        name="webhook-url",
        reason="Whoever knows a webhook's address can post to it.",
        find=matching(
            r"""(?<![\w.-])(?P<secret>(?:[\w-]{1,40}\.){0,4}(?i: hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/ | discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/
            | webhook\.office\.com/webhookb2/ | logic\.azure\.com[^\s"'<>]{0,80}/workflows/ | chat\.googleapis\.com/v1/spaces/
            | hooks\.zapier\.com/hooks/catch/ | maker\.ifttt\.com/trigger/ | outlook\.office\.com/webhook/ | api\.telegram\.org/bot
            | hook[s]?\.(?:eu\d|us\d|integromat|make)[\w.]{0,20}/ | open\.(?:feishu|larksuite)\.\w{2,3}/open-apis/bot/v2/hook/
            | qyapi\.weixin\.qq\.com/cgi-bin/webhook/ | events\.pagerduty\.com/integration/ )
            [^\s"'`<>]{6,}+)""",
        ),
        words=(
            "hooks",
            "hook",
            "webhook",
            "webhooks",
            "webhookb",
            "office",
            "ifttt",
            "logic",
            "chat",
            "telegram",
            "pagerduty",
        ),
        leaks=("POST https://«hooks.slack.com/services/T000/B000/abc» 404",),
        benign=("see https://api.slack.com/messaging/webhooks",),
    ),
    Rule(
        name="command-line-user",
        reason="curl, wget and others take user:password as one argument.",
        find=matching(
            r"""(?<![\w-]) (?:-u|-U|--user|--proxy-user|--userpass|--auth|-a|--creds?|-aX) (?:[ =]|',\s') {0,2} \\{0,2}["']? [^\s"':]{0,64} :
            (?P<secret> [^\s"'\\]{3,}+ )""",
            lambda value: not value.isdigit(),
        ),
        hints=("-u", "--auth", " -a ", "--cred"),
        leaks=("curl -u mia:«hunter2$» https://api.test", 'curl --user "mia:«a@b#c»" x'),
        benign=("docker run -u 1000:100 image", "tail -u"),
    ),
    Rule(
        name="command-line-password",
        reason="Database clients and others take the password after a short flag.",
        find=matching(
            r"""\b(?:mysql(?:dump|admin)?|mariadb|sshpass|mongo(?:sh|dump)?|redis-cli|docker[ ]login|psql|ldapsearch|smbclient|sqlcmd|openssl|zip|7z|unzip|keytool|helm|vault|az|oc|cqlsh|clickhouse-client)
            (?:[ ][^\s|;&\n]{1,80}){0,12}? [ ](?:-p(?!\ )|-p[ ]|-a[ ]|-w[ ]|-P[ ]|-storepass[ ]|-keypass[ ]|-passin[ ]pass:) (?P<secret>(?!-)[^\s|;&"']{3,}+)""",
            lambda value: not value.isdigit(),
        ),
        words=(
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mariadb",
            "sshpass",
            "mongo",
            "mongosh",
            "mongodump",
            "redis",
            "docker",
            "psql",
            "ldapsearch",
            "smbclient",
            "sqlcmd",
            "openssl",
            "zip",
            "unzip",
            "keytool",
            "helm",
            "vault",
            "cqlsh",
            "clickhouse",
        ),
        leaks=("mysql -h db -u app -p«hunter2» audit", "sshpass -p «horse» ssh host"),
        benign=("psql -h db -p 5432", "mkdir -p /tmp/x"),
    ),
    Rule(
        name="pem-block",
        reason="Key files, whole or cut off, on many lines or on one.",
        find=_find_pem,
        hints=("--begin", "-- begin", "putty-user-key"),
        leaks=(
            "key «-----BEGIN PRIVATE KEY-----\nMIIBVAIBADANBgkqhkiG9w0B\nAQEFAASC\n-----END PRIVATE KEY-----»",
            r"'«-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIabcdefghijkl\nmnopqrstuvwxyz0123»' is no key",
        ),
        benign=("expected -----BEGIN, found end of file",),
    ),
    Rule(
        name="ssh-and-htpasswd",
        reason="Public key lines identify a person; crypt hashes can be broken offline.",
        find=matching(
            r"(?<![\w/+])(?P<secret>AAAA[BCE][0-9A-Za-z+/]{40,}+={0,2} | \$(?:2[abxy]|5|6|1|apr1|y|argon2id?|scrypt|pbkdf2[\w-]{0,20})\$[./0-9A-Za-z$,=+-]{12,}+ | \{S?SHA\d{0,3}\}[A-Za-z0-9+/=]{20,}+)"
        ),
        hints=("aaaa", "$", "{s"),
        leaks=("user mia:«$2b$12$abcdefghijklmnopqrstuv» locked",),
        benign=("costs $1$ or $5", "ssh-rsa AAAAB3"),
    ),
)
