"""Tokens that vendors mark with a prefix, so that leaks can be found without a label.

A row is data: service, prefixes, alphabet of the rest and its least length. The lengths are lenient on
purpose: vendors lengthen their tokens, and a prefix followed by twenty random characters is never a word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

HEX = "0-9a-fA-F"
BASE36 = "0-9a-z"
UPPER = "0-9A-Z"
BASE62 = "0-9A-Za-z"
URLSAFE = "-0-9A-Za-z_"
DOTTED = "-0-9A-Za-z_.="


@dataclass(frozen=True, slots=True)
class Vendor:
    """One service's token formats.

    Attributes:
        service: Who issues the token.
        prefixes: What such tokens begin with, case-sensitive, two or more characters each.
        alphabet: Character class (without brackets) of what follows.
        least: Least number of characters that follow.
    """

    service: str
    prefixes: tuple[str, ...]
    alphabet: str = BASE62
    least: int = 16

    def pattern(self) -> str:
        """Return the regular expression of the whole token."""
        return f"(?:{'|'.join(map(re.escape, self.prefixes))})[{self.alphabet}]{{{self.least},}}+"


def _row(service: str, prefixes: str, alphabet: str = BASE62, least: int = 16) -> Vendor:
    return Vendor(service, tuple(prefixes.split()), alphabet, least)


VENDORS: tuple[Vendor, ...] = (
    _row("1Password", "ops_eyJ A3-", URLSAFE, 20),
    _row("Adafruit IO", "aio_", BASE62, 20),
    _row("Adobe", "p8e-", HEX + "g-z", 24),
    _row("Age", "AGE-SECRET-KEY-1 AGE-PLUGIN-", UPPER, 30),
    _row("Airtable", "pat", DOTTED, 60),
    _row("Aiven", "AVNS_", URLSAFE, 12),
    _row("Alibaba", "LTAI", BASE62, 12),
    _row("Anthropic", "sk-ant-", URLSAFE),
    _row("Artifactory", "AKC AP", BASE62, 40),
    _row("Artifactory reference token", "cmVmdGtu", BASE62, 30),
    _row("Atlassian", "ATATT3 ATCTT3 ATBB BBDC-", DOTTED, 20),
    _row("Authress", "sc_ ext_ scauth_ authress_", DOTTED, 40),
    _row("AWS key id", "AKIA ASIA ABIA ACCA AROA AIDA AGPA ANPA ANVA APKA A3T", UPPER, 12),
    _row("AWS Bedrock", "ABSK bedrock-api-key-", DOTTED, 30),
    _row("Bitwarden", "0.", DOTTED, 60),
    _row("Amazon MWS", "amzn.mws.", "-" + HEX, 24),
    _row("Brevo", "xkeysib- xsmtpsib-", URLSAFE, 20),
    _row("Buildkite", "bkua_ bkpt_ bkct_ bkaj_", BASE62, 20),
    _row("Cerebras, Cursor, Fireworks", "csk- key_ fw_", BASE62, 24),
    _row("CircleCI", "CCIPAT_ CCIPRJ_", URLSAFE, 20),
    _row("ClickHouse", "4b1d", BASE62, 30),
    _row("Clojars", "CLOJARS_", BASE62, 20),
    _row("Cloudflare origin CA", "v1.0-", URLSAFE, 40),
    _row("Contentful", "CFPAT-", URLSAFE, 20),
    _row("dbt", "dbtc_ dbtu_", URLSAFE, 24),
    _row("Databricks", "dapi dose dkea", "-" + HEX, 24),
    _row("Defined Networking", "dnkey-", URLSAFE, 20),
    _row("DigitalOcean", "doo_v1_ dop_v1_ dor_v1_", HEX, 24),
    _row("Docker", "dckr_pat_ dckr_oat_ SWMTKN-", URLSAFE, 20),
    _row("Doppler", "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.", DOTTED, 20),
    _row("Dropbox", "sl.", DOTTED, 60),
    _row("Duffel", "duffel_test_ duffel_live_", DOTTED, 20),
    _row("Dynatrace", "dt0", DOTTED, 24),
    _row("EasyPost", "EZAK EZTK", BASE62, 30),
    _row("Endor Labs", "endr+", BASE62, 12),
    _row("Facebook", "EAAM EAAC EAAB EAAG EAAE EAAD EAAA EAAI EAAJ EAAF EAAH", URLSAFE, 20),
    _row("Figma", "figd_ figu_ figo_", URLSAFE, 20),
    _row("Finicity, Finnhub", "fin_", BASE62, 20),
    _row("Flutterwave", "FLWPUBK_TEST- FLWSECK_TEST- FLWPUBK- FLWSECK- FLWSECK_TEST", URLSAFE, 10),
    _row("Fly.io", "fo1_ fm1_ fm1a_ fm1r_ fm2_", DOTTED + "+/", 20),
    _row("Frame.io", "fio-u-", DOTTED, 20),
    _row("Freemius, Stripe, Clerk", "sk_ rk_ pk_ whsec_ ak_", URLSAFE + "~!", 20),
    _row("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", BASE62 + "_", 16),
    _row(
        "GitLab",
        "glpat- gldt- glft- glsoat- glrt- glptt- glcbt- glimt- glagent- gloas- glffct- glrtr- GR1348941",
        DOTTED,
        12,
    ),
    _row("GoCardless", "live_ sandbox_", URLSAFE, 32),
    _row("Google HMAC key", "GOOG", UPPER, 20),
    _row("Google API key", "AIza", URLSAFE, 30),
    _row("Google OAuth", "GOCSPX- ya29. 1//0", DOTTED, 16),
    _row("Grafana", "glc_ glsa_ eyJrIjoi", DOTTED + "+", 16),
    _row("Groq", "gsk_", BASE62, 20),
    _row("Harness", "pat. sat.", DOTTED, 40),
    _row("HashiCorp", "hvs. hvb. hvr. s. b.", URLSAFE, 24),
    _row("Heroku", "HRKU-", URLSAFE, 20),
    _row("Highnote", "sk_test_ rk_test_ sk_live_ rk_live_", BASE62, 10),
    _row("HubSpot", "pat-na1- pat-eu1- pat-na2- pat-ap1-", URLSAFE, 24),
    _row("Hugging Face", "hf_ api_org_", BASE62, 24),
    _row("Infracost", "ico-", BASE62, 24),
    _row("Intra42", "s-s4t2ud- s-s4t2af- u-s4t2ud- u-s4t2af-", HEX, 24),
    _row("JSON web token, or any JSON in base64", "eyJ", DOTTED + "+/~", 16),
    _row("LangSmith", "lsv2_pt_ lsv2_sk_ ls__", URLSAFE, 20),
    _row("LaunchDarkly", "sdk- mob- api-", "-" + HEX, 32),
    _row("Linear", "lin_api_ lin_oauth_ lin_wh_", BASE62, 20),
    _row("MailerSend", "mlsn.", HEX, 32),
    _row("Mailgun", "key- pubkey-", BASE36, 24),
    _row("Mapbox", "pk. sk. tk.", DOTTED, 40),
    _row("Mattermost, Mergify", "mka_ mm_", BASE62, 24),
    _row("Microsoft Entra", "0.A 1.A M.C M.R", DOTTED + "*!$", 40),
    _row("Neon", "napi_ neon_", BASE62, 24),
    _row("Netlify", "nfp_ nfc_ nfo_ nfu_ nfb_", BASE62, 24),
    _row("New Relic", "NRAK- NRAA- NRII- NRIQ- NRRA- NRJS- NRSP- NRAL", URLSAFE, 16),
    _row("Nightfall", "NF-", BASE62, 24),
    _row("Notion", "ntn_ secret_", BASE62, 24),
    _row("npm", "npm_", BASE62, 24),
    _row("NuGet", "oy2", BASE36, 40),
    _row("Nvidia", "nvapi-", URLSAFE, 24),
    _row("Octopus Deploy", "API-", UPPER, 22),
    _row("Okta, SSWS", "00", URLSAFE, 40),
    _row("OpenAI and compatibles", "sk- sess-", URLSAFE, 16),
    _row("OpenRouter", "sk-or-", URLSAFE, 16),
    _row("OpenShift", "sha256~", URLSAFE, 30),
    _row("Paystack, Razorpay", "rzp_live_ rzp_test_", BASE62, 12),
    _row("Perplexity", "pplx-", BASE62, 24),
    _row("Pinecone", "pcsk_ pclocal", BASE62 + "_", 24),
    _row(
        "Plaid",
        "access-sandbox- access-development- access-production- public-sandbox- link-sandbox-",
        "-" + HEX,
        24,
    ),
    _row("PlanetScale", "pscale_pw_ pscale_tkn_ pscale_oauth_", DOTTED, 20),
    _row("PostHog", "phc_ phx_ phs_ pha_ phr_", BASE62, 24),
    _row("Postman", "PMAK- PMAT-", URLSAFE, 20),
    _row("Prefect", "pnu_ pnb_", BASE62, 24),
    _row("PubNub", "sub-c- pub-c- sec-c-", URLSAFE, 24),
    _row("Pulumi", "pul-", HEX, 24),
    _row("PyPI", "pypi-", URLSAFE, 24),
    _row("ReadMe", "rdme_", BASE62, 24),
    _row("Replicate", "r8_", BASE62, 24),
    _row("Resend, Render, Retool", "re_ rnd_ retool_", BASE62 + "_", 20),
    _row("RubyGems", "rubygems_", HEX, 24),
    _row("Scalingo", "tk-us-", URLSAFE, 24),
    _row("Scaleway", "SCW", UPPER, 16),
    _row("SendGrid", "SG.", DOTTED, 20),
    _row("Sentry", "sntrys_ sntryu_ sntrya_ sntryi_", DOTTED + "+/", 24),
    _row("SettleMint", "sm_pat_ sm_aat_ sm_sat_", BASE62, 12),
    _row("Shippo", "shippo_live_ shippo_test_", HEX, 24),
    _row("Shopify", "shpat_ shpca_ shppa_ shpss_ shptka_ atkn_", BASE62, 20),
    _row("Slack", "xoxa- xoxb- xoxc- xoxd- xoxe- xoxe. xoxo- xoxp- xoxr- xoxs- xapp- xwfp-", DOTTED + "%", 8),
    _row("SonarQube", "squ_ sqp_ sqa_", BASE62, 24),
    _row("Sourcegraph", "sgp_ slk_", BASE62 + "_", 24),
    _row("Square", "sq0atp- sq0csp- sq0idp- sq0ids- sandbox-sq0", URLSAFE, 16),
    _row("Supabase", "sbp_ sb_secret_ sb_publishable_", URLSAFE, 24),
    _row("Statsig, Stytch", "secret-", URLSAFE, 32),
    _row("Tailscale", "tskey-", URLSAFE, 16),
    _row("Together, Hetzner, Pexels", "tgp_v1_", URLSAFE, 24),
    _row("Trello", "ATTA", BASE62, 32),
    _row("Twilio", "AC SK", HEX, 30),
    _row("Twitter", "AAAAAAAAAAAAAAAAAAAA", BASE62 + "%", 20),
    _row("Tavily", "tvly-", URLSAFE, 24),
    _row("Typeform", "tfp_", DOTTED, 24),
    _row("Vercel, Volcano", "vck_ vcp_ vci_ vca_ vcr_", BASE62, 24),
    _row("Voyage", "pa-", URLSAFE, 40),
    _row("Weblate", "wlu_ wlp_", BASE62, 24),
    _row("xAI", "xai-", BASE62, 24),
    _row("Yandex", "AQVN YC t1.", DOTTED, 34),
    _row("Zapier, Zuplo", "zpka_ zp_", BASE62 + "_", 20),
    _row("Bitcoin segwit", "bc1 tb1", BASE36, 20),
    _row("Bitcoin extended key", "xprv xpub yprv zprv", BASE62, 60),
    _row("Solana, Stellar, Monero seed", "SECRET_KEY_1", UPPER, 24),
)


def _index(vendors: Iterable[Vendor]) -> dict[str, re.Pattern[str]]:
    """Compile one expression per first two characters: a token then costs one dictionary look-up."""
    patterns: dict[str, list[str]] = {}
    for vendor in vendors:
        for prefix in vendor.prefixes:
            one = Vendor(vendor.service, (prefix,), vendor.alphabet, vendor.least)
            patterns.setdefault(prefix[:2], []).append(one.pattern())
    return {start: re.compile("|".join(alternatives)) for start, alternatives in patterns.items()}


_BY_START = _index(VENDORS)


def vendor_token_end(text: str, start: int) -> int | None:
    """Return where the vendor token that begins at `start` ends, or None where none begins."""
    pattern = _BY_START.get(text[start : start + 2])
    match = pattern.match(text, start) if pattern else None
    return match.end() if match else None
