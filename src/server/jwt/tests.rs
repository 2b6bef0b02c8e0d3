//! Tokens that are refused, each for its own reason, and the few that are not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use serde_json::{Value, json};

use super::verify::{JwtRefusal, Verified};
use super::{KeySet, Verifier};
use crate::clock::Timestamp;

const NOW_S: u64 = 1_800_000_000;
const ISSUER: &str = "https://idp.example.com";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer with a key of each kind that it can make here; RSA keys are in [`RSA_N`].
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
    /// The same key, whose signatures are in DER.
    ec_der: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: pair(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ec_der: pair(&ECDSA_P256_SHA256_ASN1_SIGNING),
            random: SystemRandom::new(),
        }
    }

    fn keys(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encoded(self.ed.public_key())},
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "use": "sig", "x": x, "y": y},
            {"kty": "RSA", "kid": "rsa", "n": RSA_N, "e": "AQAB"},
            {"kty": "RSA", "kid": "rsa-1024", "n": encoded([0xc1; 128]), "e": "AQAB"},
            {"kty": "RSA", "kid": "rsa-enc", "use": "enc", "n": encoded([0xc1; 256]), "e": "AQAB"},
            {"kty": "EC", "crv": "P-384", "kid": "p384", "x": encoded([1; 48]), "y": encoded([1; 48])},
            {"kty": "oct", "kid": "secret", "k": encoded("secret")},
        ]})
    }

    fn verifier(&self, keys: &Value) -> Verifier {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), keys.to_string()).unwrap();
        Verifier::new(KeySet::load(file.path()).unwrap(), ISSUER, "bmdemo")
    }

    /// A token with this head and these claims as they are written, signed by the Ed25519 key.
    fn raw(&self, head: &str, claims: &str) -> String {
        let message = format!("{}.{}", encoded(head), encoded(claims));
        let signature = self.ed.sign(message.as_bytes());
        format!("{message}.{}", encoded(signature))
    }

    fn with(&self, head: &Value, claims: &Value) -> String {
        self.raw(&head.to_string(), &claims.to_string())
    }

    fn es256(&self, key: &EcdsaKeyPair, head: &Value) -> String {
        let message = format!("{}.{}", encoded(head.to_string()), encoded(claims().to_string()));
        let signature = key.sign(&self.random, message.as_bytes()).unwrap();
        format!("{message}.{}", encoded(signature))
    }
}

/// The modulus of an RSA key of 2048 bits that was made for this test and is kept nowhere.
const RSA_N: &str = "n4y4FL6qsfIZFc71HVVfhPW_7hRRP7haC1SR21UnfqbKhnv2r3Rk2LmTTvMekWyEdhJYZ5nxm0UNPT1Qa9XRbJhoExEpZH-JaADuDjSxwCvu2UXzU2plKEQCMVdKSqksOmUnfnmfurH4itiga9MlFnkYzV1YxRSgl6rELlyF8_QuV_Lb6W2yYFs8mUW8kG3-DGRE19y1D10j0ywoYVFrzROp3bNiKaxpHqdjaYso_6CTuIjhuyTcLrVYue1GwGVZj-ssN0jMTHPkXaKAWwYDZ0ys40vRhe-g4EWOIUz8IUcs-VEpSnpNxw0NPBXXJge0fH6wDF1kzqqy1z1HSuv_8w";

/// The claims of this test, signed by that key.
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbSIsImF1ZCI6ImJtZGVtbyIsInN1YiI6ImFubkBleGFtcGxlLmNvbSIsIm5iZiI6MTgwMDAwMDAwMCwiZXhwIjoxODAwMDAzNjAwfQ.VuGvyPXTVj4JxDzMshOoV_YZz_6pxraA6zlVBl-YD0Pi3CDN2bgAQLr17mypXgGbzctMdkM9KxdCXm6D21ZxycuOtInu3FJRaut1Afn0NerxL8XHXv2PCLDhDDgU7M4PwePWxUgZ24OdL5OWDY7C6Cv_j3VSdkeeDZzFaIIr0DuIe0mJ-ksWnpoc0M_wEno5RmQkMj77NyJvBlsgDPL3cjkM3qnn8PkXppHvM8Mt9T6SVx86R_L8XlTNmRO2NkybaLRn5xH31NkHkahwZElNhbvMBzW76So4qQYfBkqKIEnJH9yxtKsavVv1w6KM1fvX_4tMX0R_uyGyfJSg_VCm3Q";

fn head() -> Value {
    json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": "bmdemo", "sub": "ann@example.com", "nbf": NOW_S, "exp": NOW_S + 3600})
}

/// The claims with one of them changed, or left out.
fn claim(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn headed(name: &str, value: Value) -> Value {
    let mut head = head();
    head[name] = value;
    head
}

#[test]
fn tokens_that_are_in_order_are_believed() {
    let issuer = Issuer::new();
    let verifier = issuer.verifier(&issuer.keys());
    let good = Verified {
        subject: "ann@example.com".to_owned(),
        expires_at: Timestamp((NOW_S + 3600) * 1000),
    };
    let es256 = json!({"alg": "ES256", "kid": "ec"});
    for token in [
        issuer.with(&head(), &claims()),
        issuer.with(&head(), &claim("aud", json!(["other", "bmdemo"]))),
        issuer.with(&head(), &claim("nbf", json!(NOW_S + 59))),
        issuer.with(&headed("typ", json!("at+jwt")), &claims()),
        issuer.with(&head(), &claim("more", json!({"sub": "root"}))),
        // What a token says of keys is not looked at.
        issuer.with(&headed("jku", json!("https://evil.example/keys")), &claims()),
        issuer.with(&headed("jwk", json!({"kty": "oct", "k": "x"})), &claims()),
        issuer.es256(&issuer.ec, &es256),
        RS256.to_owned(),
    ] {
        assert_eq!(verifier.verify(&token, Timestamp(NOW_S * 1000)), Ok(good.clone()), "{token}");
    }
    // With a single key a token need not name it.
    let only = json!({"keys": [issuer.keys()["keys"][0]]});
    let verifier = issuer.verifier(&only);
    let token = issuer.with(&json!({"alg": "EdDSA"}), &claims());
    assert_eq!(verifier.verify(&token, Timestamp(NOW_S * 1000)), Ok(good));
}

#[test]
fn every_wrong_token_has_its_reason() {
    let issuer = Issuer::new();
    let stranger = Issuer::new();
    let verifier = issuer.verifier(&issuer.keys());
    let good = issuer.with(&head(), &claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let es256 = json!({"alg": "ES256", "kid": "ec"});
    let text = |claims: &str| issuer.raw(&head().to_string(), claims);
    let replaced = |from: &str, to: &str| text(&claims().to_string().replace(from, to));
    let exp = (NOW_S + 3600).to_string();
    let none = |alg: &str| {
        let head = json!({"alg": alg, "kid": "ed"});
        format!("{}.{}.", encoded(head.to_string()), encoded(claims().to_string()))
    };
    let hmac = json!({"alg": "HS256", "kid": "rsa"});
    let in_json = json!({"payload": encoded(claims().to_string()), "signatures": []}).to_string();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[0] ^= 1;
    let cases: Vec<(&str, String, &str)> = vec![
        ("nothing", String::new(), "three parts"),
        ("one part", "x".to_owned(), "three parts"),
        ("two parts", message.to_owned(), "three parts"),
        ("four parts", format!("{good}.x"), "three parts"),
        ("JSON instead", in_json, "three parts"),
        ("16 KB", format!("{}.{}", message, "A".repeat(16 * 1024)), "longer than 8192"),
        ("padding", format!("{good}="), "three parts"),
        (
            "base64 of another kind",
            format!("{message}.{}", STANDARD.encode([0xff; 64])),
            "three parts",
        ),
        ("alg none", none("none"), "algorithm \"none\""),
        ("alg None", none("None"), "algorithm \"None\""),
        ("alg nOnE", none("nOnE"), "algorithm \"nOnE\""),
        ("no alg", issuer.with(&json!({"kid": "ed"}), &claims()), "head cannot be read"),
        (
            "alg twice",
            issuer.raw(r#"{"alg":"EdDSA","alg":"none","kid":"ed"}"#, "{}"),
            "head cannot be read",
        ),
        ("HS256 with the public key", issuer.with(&hmac, &claims()), "algorithm \"HS256\""),
        (
            "RS256 for an Ed25519 key",
            issuer.with(&headed("alg", json!("RS256")), &claims()),
            "algorithm \"RS256\"",
        ),
        (
            "ES256 for an Ed25519 key",
            issuer.with(&headed("alg", json!("ES256")), &claims()),
            "algorithm \"ES256\"",
        ),
        (
            "EdDSA for an EC key",
            issuer.with(&headed("kid", json!("ec")), &claims()),
            "algorithm \"EdDSA\"",
        ),
        (
            "RS256 with a signature of another key",
            issuer.with(&json!({"alg": "RS256", "kid": "rsa"}), &claims()),
            "signature is wrong",
        ),
        ("no kid among several", issuer.with(&json!({"alg": "EdDSA"}), &claims()), "keys"),
        (
            "kid that is a path",
            issuer.with(&headed("kid", json!("../../../dev/null")), &claims()),
            "../../../dev/null",
        ),
        (
            "kid that is SQL",
            issuer.with(&headed("kid", json!("' OR 1=1 --")), &claims()),
            "' OR 1=1 --",
        ),
        (
            "kid that is no text",
            issuer.with(&headed("kid", json!(7)), &claims()),
            "head cannot be read",
        ),
        (
            "kid with an escape",
            issuer.with(&headed("kid", json!("\u{1b}[2J")), &claims()),
            "\\u{1b}[2J",
        ),
        (
            "key that was rotated out",
            issuer.with(&headed("kid", json!("old")), &claims()),
            "(\"old\")",
        ),
        (
            "secret in the key set",
            issuer.with(&json!({"alg": "HS256", "kid": "secret"}), &claims()),
            "(\"secret\")",
        ),
        (
            "RSA of 1024 bits",
            issuer.with(&json!({"alg": "RS256", "kid": "rsa-1024"}), &claims()),
            "(\"rsa-1024\")",
        ),
        (
            "key for encryption",
            issuer.with(&json!({"alg": "RS256", "kid": "rsa-enc"}), &claims()),
            "(\"rsa-enc\")",
        ),
        (
            "P-384 with ES256",
            issuer.with(&json!({"alg": "ES256", "kid": "p384"}), &claims()),
            "(\"p384\")",
        ),
        ("ES256 in DER", issuer.es256(&issuer.ec_der, &es256), "signature is wrong"),
        ("another issuer's key", stranger.with(&head(), &claims()), "signature is wrong"),
        (
            "RS256 with a flipped bit",
            format!("{}{}", &RS256[..RS256.len() - 8], "AAAAAAAA"),
            "signature is wrong",
        ),
        ("a flipped bit", format!("{message}.{}", encoded(&flipped)), "signature is wrong"),
        ("no signature", format!("{message}."), "signature is wrong"),
        (
            "zeros as ES256 signature",
            format!(
                "{}.{}.{}",
                encoded(es256.to_string()),
                encoded(claims().to_string()),
                encoded([0; 64])
            ),
            "signature is wrong",
        ),
        (
            "claims of another token",
            format!(
                "{}.{}.{signature}",
                encoded(head().to_string()),
                encoded(claim("sub", json!("root")).to_string())
            ),
            "signature is wrong",
        ),
        ("crit", issuer.with(&headed("crit", json!(["exp"])), &claims()), "crit"),
        (
            "typ of something else",
            issuer.with(&headed("typ", json!("secevent+jwt")), &claims()),
            "\"secevent+jwt\"",
        ),
        ("no issuer", issuer.with(&head(), &claim("iss", Value::Null)), "missing field `iss`"),
        (
            "issuer with a slash",
            issuer.with(&head(), &claim("iss", json!(format!("{ISSUER}/")))),
            "issuer",
        ),
        (
            "issuers in a list",
            issuer.with(&head(), &claim("iss", json!([ISSUER]))),
            "claims cannot be read",
        ),
        ("no audience", issuer.with(&head(), &claim("aud", Value::Null)), "missing field `aud`"),
        (
            "another audience",
            issuer.with(&head(), &claim("aud", json!("bmdemo2"))),
            "auth.jwt.audience",
        ),
        (
            "audiences without us",
            issuer.with(&head(), &claim("aud", json!(["a", "b"]))),
            "auth.jwt.audience",
        ),
        (
            "no audience in a list",
            issuer.with(&head(), &claim("aud", json!([]))),
            "auth.jwt.audience",
        ),
        ("no exp", issuer.with(&head(), &claim("exp", Value::Null)), "missing field `exp`"),
        ("exp as text", issuer.with(&head(), &claim("exp", json!(exp))), "claims cannot be read"),
        ("exp without bounds", replaced(&exp, "1e400"), "claims cannot be read"),
        ("exp below 0", replaced(&exp, "-1"), "claims cannot be read"),
        ("exp as a fraction", replaced(&exp, &format!("{exp}.5")), "claims cannot be read"),
        ("exp now", issuer.with(&head(), &claim("exp", json!(NOW_S))), "has expired"),
        ("exp long ago", issuer.with(&head(), &claim("exp", json!(1))), "has expired"),
        (
            "exp in two days",
            issuer.with(&head(), &claim("exp", json!(NOW_S + 2 * 86_400))),
            "more than a day",
        ),
        (
            "exp at the end of time",
            issuer.with(&head(), &claim("exp", json!(u64::MAX))),
            "more than a day",
        ),
        ("no nbf", issuer.with(&head(), &claim("nbf", Value::Null)), "missing field `nbf`"),
        (
            "nbf as text",
            issuer.with(&head(), &claim("nbf", json!(NOW_S.to_string()))),
            "claims cannot be read",
        ),
        ("nbf in 61 s", issuer.with(&head(), &claim("nbf", json!(NOW_S + 61))), "not valid yet"),
        (
            "nbf at the end of time",
            issuer.with(&head(), &claim("nbf", json!(u64::MAX))),
            "not valid yet",
        ),
        ("no subject", issuer.with(&head(), &claim("sub", Value::Null)), "missing field `sub`"),
        ("empty subject", issuer.with(&head(), &claim("sub", json!(""))), "no subject"),
        (
            "subject twice",
            replaced("\"sub\":", "\"sub\":\"root\",\"sub\":"),
            "duplicate field `sub`",
        ),
        (
            "subject as a number",
            issuer.with(&head(), &claim("sub", json!(7))),
            "claims cannot be read",
        ),
        ("claims in a list", text("[]"), "claims cannot be read"),
        ("no claims", text(""), "claims cannot be read"),
        ("more after the claims", text(&format!("{}x", claims())), "claims cannot be read"),
    ];
    assert!(cases.len() >= 60);
    for (name, token, why) in &cases {
        let refusal = verifier.verify(token, Timestamp(NOW_S * 1000)).unwrap_err();
        let refusal = refusal.to_string();
        assert!(refusal.contains(why), "{name}: {refusal}");
        assert!(!refusal.contains('\u{1b}'), "{name}: {refusal}");
    }
    let rotated = issuer.verifier(&json!({"keys": [issuer.keys()["keys"][1]]}));
    let refusal = rotated.verify(&good, Timestamp(NOW_S * 1000)).unwrap_err();
    assert_eq!(refusal, JwtRefusal::UnknownKey("ed".to_owned()));
}

#[test]
fn key_sets_that_cannot_be_used_are_refused() {
    let issuer = Issuer::new();
    let load = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        KeySet::load(file.path()).map(drop).map_err(|error| error.to_string())
    };
    let keys = issuer.keys();
    let twice = json!({"keys": [keys["keys"][0], keys["keys"][0]]});
    let wrong_alg =
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "HS256", "x": encoded([1; 32])}]});
    for (text, why) in [
        ("", "is no JSON Web Key Set"),
        ("{}", "is no JSON Web Key Set"),
        ("{\"keys\": []}", "has no key"),
        (&json!({"keys": [keys["keys"][3], keys["keys"][6]]}).to_string(), "has no key"),
        (&wrong_alg.to_string(), "has no key"),
        (&twice.to_string(), "two keys have the id \"ed\""),
    ] {
        let error = load(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    load(&keys.to_string()).unwrap();
}
