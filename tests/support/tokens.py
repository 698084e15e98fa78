"""Tokens as forgers and careless providers write them, and good ones beside them."""

from __future__ import annotations

from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.provider import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    OTHER_RSA_KEY,
    RSA_KEY,
    claims,
    jwk,
    token,
    unsigned,
)

HEAD = {"alg": "RS256", "kid": "rsa-1", "typ": "JWT"}
PEM = RSA_KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
GOOD = token()


def confused() -> str:
    """HS256 with the public key's PEM as its secret."""
    head = unsigned({"alg": "HS256", "kid": "rsa-1", "typ": "JWT"}, claims())[:-1]
    code = hmac.HMAC(PEM, hashes.SHA256())
    code.update(head.encode())
    return f"{head}.{jwt.utils.base64url_encode(code.finalize()).decode()}"


def signed(**changes: Any) -> str:
    return token(claims(**changes))


ADDRESS = "http://127.0.0.1:1/jwks"
OWN = jwk(OTHER_RSA_KEY, "rsa-1")

TIMELESS: dict[str, str] = {
    "no dots": "abc",
    "two parts": "a.b",
    "five parts, as an encrypted token": "a.b.c.d.e",
    "empty parts": "..",
    "not base64": "!!.??.**",
    "not JSON": unsigned(b"{", b"{", b"x"),
    "a header that is a list": unsigned([], claims(), b"x"),
    "a header that is deep": unsigned(b"[" * 5000, claims(), b"x"),
    "too large": signed(padding="x" * 20_000),
    "alg none": unsigned({"alg": "none", "kid": "rsa-1", "typ": "JWT"}, claims()),
    "alg None": unsigned({"alg": "None", "kid": "rsa-1", "typ": "JWT"}, claims()),
    "alg nOnE with a signature": unsigned(
        {"alg": "nOnE", "kid": "rsa-1", "typ": "JWT"}, claims(), b"x"
    ),
    "alg empty": unsigned({"alg": "", "kid": "rsa-1", "typ": "JWT"}, claims(), b"x"),
    "alg missing": unsigned({"kid": "rsa-1", "typ": "JWT"}, claims(), b"x"),
    "alg a list": unsigned({"alg": ["RS256"], "kid": "rsa-1", "typ": "JWT"}, claims(), b"x"),
    "HS256 with the public key": confused(),
    "HS256 with an empty secret": unsigned(
        {"alg": "HS256", "kid": "rsa-1", "typ": "JWT"}, claims(), b"\0" * 32
    ),
    "RS512 with the right key": token(algorithm="RS512"),
    "PS256 with the right key": token(algorithm="PS256"),
    "ES256 claimed for the RSA key": token(key=EC_KEY, algorithm="ES256", kid="rsa-1"),
    "RS256 claimed for the EC key": token(kid="ec-1"),
    "ES256 with a signature of zeros": unsigned(
        {"alg": "ES256", "kid": "ec-1", "typ": "JWT"}, claims(), b"\0" * 64
    ),
    "another curve": token(
        key=ec.generate_private_key(ec.SECP384R1()), algorithm="ES384", kid="ec-1"
    ),
    "another key under a known id": token(key=OTHER_RSA_KEY),
    "a third key under a known id": token(
        key=rsa.generate_private_key(public_exponent=65537, key_size=2048), kid="rsa-1"
    ),
    "an unknown id": token(key=OTHER_RSA_KEY, kid="rsa-9"),
    "no id": token(kid=None),
    "an empty id": unsigned(HEAD | {"kid": ""}, claims(), b"x"),
    "an id that is a path": token(key=OTHER_RSA_KEY, kid="../../../../dev/null"),
    "an id that is SQL": token(key=OTHER_RSA_KEY, kid="x' UNION SELECT 'k"),
    "an id that is an address": token(key=OTHER_RSA_KEY, kid="http://127.0.0.1:1/jwks"),
    "an id that is a number": unsigned(HEAD | {"kid": 1}, claims(), b"x"),
    "an id that is long": token(key=OTHER_RSA_KEY, kid="k" * 300),
    "jku": token(key=OTHER_RSA_KEY, jku=ADDRESS),
    "jku with the right key": token(jku=ADDRESS),
    "x5u": token(key=OTHER_RSA_KEY, x5u=ADDRESS),
    "jwk": token(key=OTHER_RSA_KEY, jwk=OWN),
    "jwk with the right key": token(jwk=OWN),
    "x5c": token(key=OTHER_RSA_KEY, x5c=["MIIB"]),
    "crit": token(crit=["exp"]),
    "typ missing": token(typ=None),
    "typ of another token": token(typ="secevent+jwt"),
    "typ a number": unsigned(HEAD | {"typ": 1}, claims(), b"x"),
    "an id token": signed(nonce="n", at_hash="h"),
    "no exp": signed(exp=None),
    "exp true": signed(exp=True),
    "exp infinite": token(claims(exp=float("inf"))),
    "no iat": signed(iat=None),
    "another issuer": signed(iss=f"{ISSUER}.evil.example"),
    "an issuer with a slash": signed(iss=f"{ISSUER}/"),
    "an issuer in a list": signed(iss=[ISSUER]),
    "no issuer": signed(iss=None),
    "another audience": signed(aud="mind2"),
    "no audience": signed(aud=None),
    "an empty audience": signed(aud=[]),
    "an audience that is an object": signed(aud={AUDIENCE: 1}),
    "no user": signed(sub=None),
    "an empty user": signed(sub=""),
    "a user with a line end": signed(sub="ann\nx-tenant-id: other"),
    "a user that is long": signed(sub="a" * 300),
    "no tenant": signed(tenant_id=None),
    "an empty tenant": signed(tenant_id=""),
    "a tenant of blanks": signed(tenant_id="  "),
    "a tenant that is a number": signed(tenant_id=7),
    "roles that are an object": signed(roles={"super_admin": True}),
    "roles that are numbers": signed(roles=[1]),
    "claims that are a list": unsigned(HEAD, [], b"x"),
}


def bad_tokens(now: int) -> dict[str, str]:
    """What is wrong with each, and the token. Made late, because some must be young."""
    good = token()
    start, signature = good.rsplit(".", 1)
    return TIMELESS | {
        "no signature": start + ".",
        "a signature cut short": good[:-8],
        "a changed signature": f"{start}.{'A' * len(signature)}",
        "a changed body": ".".join(
            (good.split(".")[0], signed(sub="eve").split(".")[1], signature)
        ),
        "expired": signed(exp=now - 60),
        "exp a text": signed(exp=str(now + 3600)),
        "exp a list": signed(exp=[now + 3600]),
        "not yet": signed(nbf=now + 120),
        "nbf a text": signed(nbf=str(now)),
        "issued in the future": signed(iat=now + 120),
    }


GOOD_TOKENS = (
    GOOD,
    token(typ="at+jwt"),
    token(typ="application/at+jwt"),
    token(key=EC_KEY, algorithm="ES256", kid="ec-1"),
    signed(aud=["other", AUDIENCE]),
    signed(nbf=None),
    signed(roles="tenant_user tenant_viewer"),
    signed(roles=None, module_permissions=["scaimind:view", "other:all"]),
)
