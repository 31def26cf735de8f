//! How a receiver knows that a webhook is ours.

use std::sync::OnceLock;

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::{KeyPair, KeySize},
    signature::{KeyPair as _, RSA_PKCS1_SHA256},
};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::json;

/// How an endpoint's webhooks are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// A token that holds the body, signed with RS256.
    Jwt,
    /// HMAC-SHA256 of the body.
    Hmac,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Hmac => "hmac",
        }
    }

    /// Returns the value of X-Lago-Signature for this body.
    pub(crate) fn sign(self, body: &str, hmac_key: &str, issuer: &str) -> String {
        match self {
            Self::Hmac => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, hmac_key.as_bytes());
                BASE64_STANDARD.encode(hmac::sign(&key, body.as_bytes()))
            }
            Self::Jwt => {
                let part =
                    |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
                let header = part(json!({ "alg": "RS256" }));
                let claims = part(json!({ "data": body, "iss": issuer }));
                let signed = format!("{header}.{claims}");
                let signature = BASE64_URL_SAFE_NO_PAD.encode(rsa(signed.as_bytes()));
                format!("{signed}.{signature}")
            }
        }
    }
}

/// One key for the life of the process.
#[expect(
    clippy::expect_used,
    reason = "without a key there is nothing to stand in with"
)]
fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).expect("an RSA key of 2048 bits"))
}

#[expect(
    clippy::expect_used,
    reason = "the signature of a fresh key and enough room"
)]
fn rsa(message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key().public_modulus_len()];
    key()
        .sign(
            &RSA_PKCS1_SHA256,
            &SystemRandom::new(),
            message,
            &mut signature,
        )
        .expect("a signature");
    signature
}

/// The public key as PEM.
#[expect(clippy::expect_used, reason = "a key that was just generated")]
pub(crate) fn public_key_pem() -> String {
    let der: PublicKeyX509Der<'_> = key().public_key().as_der().expect("a public key");
    let text = in_lines(&BASE64_STANDARD.encode(der.as_ref()), 64);
    format!("-----BEGIN PUBLIC KEY-----\n{text}-----END PUBLIC KEY-----\n")
}

/// Breaks a base64 text into lines, each ended.
pub(crate) fn in_lines(text: &str, width: usize) -> String {
    text.as_bytes()
        .chunks(width)
        .map(|line| format!("{}\n", String::from_utf8_lossy(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hmac_is_padded_base64_of_the_exact_body() {
        // RFC 4231, test case 2.
        let signature = Algorithm::Hmac.sign("what do ya want for nothing?", "Jefe", "");
        assert_eq!(signature, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
        assert_eq!(signature.len() % 4, 0);
    }

    #[test]
    fn lines_are_as_long_as_asked_for() {
        assert_eq!(in_lines("abcde", 2), "ab\ncd\ne\n");
    }
}
