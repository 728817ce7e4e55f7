"""Credentials in command lines, as subprocess errors and shell histories show them."""

from __future__ import annotations

from techdeck_tasks.redaction.rule import Rule, matching

_CLIENTS = (
    "7z", "az", "clickhouse", "cqlsh", "docker", "helm", "keytool", "ldapsearch", "mariadb", "mongo",
    "mongodump", "mongosh", "mysql", "mysqladmin", "mysqldump", "openssl", "psql", "redis", "smbclient",
    "sqlcmd", "sshpass", "unzip", "vault", "zip",
)  # fmt: skip

COMMAND_RULES: tuple[Rule, ...] = (
    Rule(
        name="redis-directive",
        reason="Redis is told its passwords by directives, which MONITOR and CONFIG SET show.",
        find=matching(
            r"""(?i:\b(?:requirepass|masterauth)\\{0,4}["']?[ ]\\{0,4}["']?)(?P<secret>[^\s"'\\]{3,}+)"""
        ),
        words=("masterauth", "requirepass"),
        leaks=("CONFIG SET requirepass «hunter2»", 'masterauth "«mongoose»"'),
        benign=("no requirepass: open to all",),
    ),
    Rule(
        name="login-line",
        reason="A .netrc names machine, login and password in words.",
        find=matching(r"(?i:\blogin[ \t]+[^\s:]{1,80}\s{1,8}password[ \t]+)(?P<secret>\S{3,})"),
        words=("login",),
        leaks=("machine api.test login app password «mongoose» macdef x",),
        benign=("login page: password forgotten",),
    ),
    Rule(
        name="command-line-user",
        reason="curl, wget and others take user:password as one argument.",
        find=matching(
            r"""(?<![\w-]) (?:-u|-U|--user|--proxy-user|--userpass|--auth|-a|--creds?) (?:[ =]|',\s'){0,2}
            \\{0,2}["']?
            [^\s"':]{0,64} : (?P<secret> [^\s"'\\]{3,}+ )""",
            lambda value: not value.isdigit(),
        ),
        hints=("-u", " -a "),
        words=("auth", "cred", "creds", "user", "userpass"),
        leaks=("curl -u mia:«hunter2$» https://api.test", 'curl --user "mia:«a@b#c»" x'),
        benign=("docker run -u 1000:100 image", "tail -u"),
    ),
    Rule(
        name="command-line-password",
        reason="Database clients and others take the password after a short flag.",
        find=matching(
            rf"""\b(?:{"|".join(_CLIENTS)})(?:-cli|-client|\ login)?
            (?: (?:[ ][^\s|;&\n]{{1,80}}){{0,12}}?[ ]
              | (?:',[ ]'[^\s|;&\n']{{1,80}}+){{0,12}}?',[ ]' )
            (?: -p(?:[ ]|',[ ]')? | (?:-a|-w|-P|-storepass|-keypass)(?:[ ]|',[ ]') | -passin[ ]pass: )
            (?P<secret> (?!-)[^\s|;&"']{{3,}}+ )""",
            lambda value: not value.isdigit(),
        ),
        words=("z", *filter(str.isalpha, _CLIENTS)),
        leaks=(
            "mysql -h db -u app -p«hunter2» audit",
            "sshpass -p «horse» ssh host",
            "redis-cli -a «horse» ping",
            "Command '['mysql', '-p«hunter2»', '-h', 'db']' died",
            "7z x a.7z -p«hunter2»",
        ),
        benign=("psql -h db -p 5432", "mkdir -p /tmp/x"),
    ),
)
