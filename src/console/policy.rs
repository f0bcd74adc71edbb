//! The policy: what tokens may ask for.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::fault::{Result, in_turn};
use super::guard::{Caller, Sent};
use super::page::{Frame, Part, render};
use crate::domain::Policy;

struct Key {
    name: &'static str,
    value: String,
    title: &'static str,
    hint: &'static str,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct Page {
    frame: Frame,
    keys: Vec<Key>,
    fault: Option<String>,
    done: Option<String>,
}

fn keys(policy: &Policy) -> Vec<Key> {
    let key = |name, value: String, title, hint| Key { name, value, title, hint };
    vec![
        key(
            "max-tokens-per-user",
            policy.max_tokens_per_user.to_string(),
            "Tokens a user may have",
            "Live ones count. Who has more already keeps them.",
        ),
        key(
            "default-lifetime",
            policy.default_lifetime.to_string(),
            "Life of a token that asks for none",
            "Such as 90d; no longer than the longest life.",
        ),
        key(
            "max-lifetime",
            policy.max_lifetime.to_string(),
            "Longest life of a token",
            "Such as 1Y; auto refresh ends here, too.",
        ),
        key(
            "allow-never",
            policy.allow_never.to_string(),
            "Tokens that live until they are revoked",
            "Those that there are live on.",
        ),
        key(
            "token-retention",
            policy.token_retention.to_string(),
            "How long dead tokens are kept",
            "Then they leave the lists.",
        ),
        key(
            "audit-retention",
            policy.audit_retention.to_string(),
            "How long the audit trail is kept",
            "Then its events are forgotten.",
        ),
    ]
}

/// Shows the policy.
pub(super) async fn show(caller: Caller) -> Result<Response> {
    let frame = Frame::new(&caller, Part::Policy);
    let (tokens, who) = (caller.shared.tokens.clone(), caller.authority());
    let policy = in_turn(caller.light(), move || Ok(tokens.policy(&who)?)).await?;
    render(StatusCode::OK, &Page { frame, keys: keys(&policy), fault: None, done: None })
}

/// Changes one key.
pub(super) async fn change(sent: Sent) -> Result<Response> {
    let frame = Frame::new(&sent.caller, Part::Policy);
    let (tokens, who) = (sent.caller.shared.tokens.clone(), sent.caller.authority());
    let key = sent.fields.text("key").unwrap_or_default().to_owned();
    let value = sent.fields.text("value").unwrap_or_default().to_owned();
    in_turn(sent.caller.light(), move || {
        let (status, policy, fault) = match tokens.set_policy(&who, &key, &value) {
            Ok(policy) => (StatusCode::OK, policy, None),
            Err(error @ crate::tokens::Error::InvalidSetting(_)) => {
                let fault = super::fault::Fault::from(error);
                (fault.status(), tokens.policy(&who)?, Some(fault.told()))
            }
            Err(error) => return Err(error.into()),
        };
        let done = fault.is_none().then(|| format!("{key} is {value} now."));
        render(status, &Page { frame, keys: keys(&policy), fault, done })
    })
    .await
}
