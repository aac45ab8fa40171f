"""What a bucket's service says against a request, in one sentence. Pure."""

from __future__ import annotations

import re

_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they have one)"
_REFUSED = (
    "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403 Forbidden",
    "401 Unauthorized", "Unauthenticated",
)  # fmt: skip
_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "redirect without LOCATION", "IllegalLocation")
_ABSENT = ("/latest/api/token", "/latest/meta-data", "169.254.", "Missing AccessKeyId", "Missing SecretAccessKey")


def sentence(root: str, text: str) -> str:
    """What is wrong, and what to do; `text` is what the client library says."""
    said = text.partition("Debug source")[0]
    bucket = root.removeprefix("s3://").partition("/")[0]
    code = re.search(r"<Code>(\w+)</Code>", said)
    names = f"{code[1] if code else ''} {said}"
    short = code[1] if code else " ".join(re.split(r" - |: <\?xml", said)[-1].split())[:120]
    if "NoSuchBucket" in names:
        return f"store {root}: there is no bucket {bucket}; create it, or set another `store:`"
    if any(one in said for one in _ABSENT):
        return f"store {root}: there are no credentials; {_KEYS}"
    if any(one in names for one in _REGION):
        return f"store {root}: the bucket is in another region ({short}); set AWS_REGION to its own"
    if any(one in names for one in _REFUSED):
        return f"store {root}: the credentials are refused ({short}); {_KEYS}"
    what = "it does not answer in time" if "kind: Timeout" in text else short
    return (
        f"store {root}: the bucket cannot be reached ({what}); what is committed is safe: look at AWS_ENDPOINT_URL and "
        "the network, and run again"
    )
