"""What services say against a request becomes what a person can act on."""

from __future__ import annotations

import pytest

from harvest.store.outage import sentence

SERVER = "Generic S3 error: Error performing GET https://s3/b/x in 5ms - Server returned non-2xx status code: {}"
CODE = ': <?xml version="1.0"?>\n<Error><Code>{}</Code><Message>some</Message></Error>\n\nDebug source:\nGeneric {{\n'


REFUSED, KEYS = SERVER.format("403 Forbidden"), "are refused ({}); set AWS_ACCESS_KEY_ID"
SENDING = "HTTP error: error sending request\n\nDebug source:\n kind: {},\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (REFUSED + CODE.format("InvalidAccessKeyId"), KEYS.format("InvalidAccessKeyId")),
        (REFUSED + CODE.format("SignatureDoesNotMatch"), KEYS.format("SignatureDoesNotMatch")),
        (REFUSED + "\n\nDebug source:\n", "credentials are refused"),
        (SERVER.format("400 Bad Request") + CODE.format("AuthorizationHeaderMalformed"), "another region (Authori"),
        ("Error performing GET x in 1ms - Received redirect without LOCATION, this normally", "set AWS_REGION"),
        (SERVER.format("404 Not Found") + CODE.format("NoSuchBucket"), "there is no bucket bucket; create it"),
        (SERVER.format("503 Slow Down") + CODE.format("SlowDown"), "cannot be reached (SlowDown); what is"),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 1ms", "there are no credentials"),
        (SENDING.format("Timeout"), "(it does not answer in time)"),
        (SENDING.format("Connect"), "cannot be reached (HTTP error: error"),
    ],
)
def test_every_refusal_names_its_remedy(text: str, said: str):
    found = sentence("s3://bucket/prefix", text)
    assert said in found
    assert found.startswith("store s3://bucket/prefix: ")
    assert "\n" not in found
    assert len(found) < 300
