//! Signatures of webhooks: HMAC-SHA256 over id, time and body, as <https://www.standardwebhooks.com> has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::error::NoticeError;

/// Prefix of a secret's text.
const SECRET_PREFIX: &str = "whsec_";
/// Lengths that a secret may have, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Maximum number of secrets: the new one and the old one, while they are exchanged.
const MAX_SECRETS: usize = 2;

/// Secrets with which webhooks are signed.
#[derive(Clone)]
pub(super) struct WebhookSecrets(Vec<Zeroizing<Vec<u8>>>);

impl WebhookSecrets {
    /// Parses secrets, one a line.
    pub(super) fn parse(text: &str, setting: &'static str) -> Result<Self, NoticeError> {
        let invalid = |reason: &str| {
            NoticeError::invalid(
                setting,
                format!("{reason}: give whsec_ and 24 to 64 random bytes in Base64, a second one on a line of its own"),
            )
        };
        let mut secrets = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let encoded = line.strip_prefix(SECRET_PREFIX).ok_or_else(|| invalid("the secret has no prefix"))?;
            let secret = BASE64.decode(encoded).map(Zeroizing::new).map_err(|_| invalid("the secret is not Base64"))?;
            if !SECRET_BYTES.contains(&secret.len()) {
                return Err(invalid("the secret has a wrong length"));
            }
            secrets.push(secret);
        }
        match secrets.len() {
            1..=MAX_SECRETS => Ok(Self(secrets)),
            _ => Err(invalid("there are too many secrets, or none")),
        }
    }

    /// Returns the value of `webhook-signature`: one signature for each secret.
    pub(super) fn sign(&self, message_id: &str, timestamp: u64, body: &str) -> String {
        let signature = |secret: &Zeroizing<Vec<u8>>| {
            // An HMAC takes a key of any length.
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
            mac.update(format!("{message_id}.{timestamp}.").as_bytes());
            mac.update(body.as_bytes());
            Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
        };
        self.0.iter().filter_map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn signature_is_that_of_the_specification() {
        let secrets = WebhookSecrets::parse(SECRET, "test").expect("a secret");
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_sign_while_they_are_exchanged() {
        let one = WebhookSecrets::parse(SECRET, "test").expect("a secret").sign("a", 1, "b");
        let text = format!("whsec_{}\n\n {SECRET} \n", BASE64.encode([7; 32]));
        let both = WebhookSecrets::parse(&text, "test").expect("two secrets").sign("a", 1, "b");
        assert!(both.ends_with(&format!(" {one}")) && both.matches("v1,").count() == 2, "{both}");
    }

    #[test]
    fn unusable_secrets_are_refused() {
        let short = format!("whsec_{}", BASE64.encode([7; 23]));
        let long = format!("whsec_{}", BASE64.encode([7; 65]));
        let three = format!("{SECRET}\n{SECRET}\n{SECRET}");
        for text in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%", &short, &long, &three] {
            assert!(WebhookSecrets::parse(text, "test").is_err(), "{text}");
        }
    }
}
