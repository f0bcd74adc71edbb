//! The policy: what tokens may ask for.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::blocking::in_turn;
use super::error::Result;
use super::guard::{ConsoleCaller, SubmittedForm};
use super::layout::{ConsoleSection, PageFrame, render_page};
use crate::domain::Policy;

struct PolicyField {
    name: &'static str,
    value: String,
    title: &'static str,
    hint: &'static str,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    frame: PageFrame,
    keys: Vec<PolicyField>,
    fault: Option<String>,
    done: Option<String>,
}

fn policy_fields(policy: &Policy) -> Vec<PolicyField> {
    let key = |name, value: String, title, hint| PolicyField { name, value, title, hint };
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
pub(super) async fn show(caller: ConsoleCaller) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Policy);
    let (tokens, who) = (caller.state.tokens.clone(), caller.authority());
    let policy = in_turn(caller.light(), move || Ok(tokens.policy(&who)?)).await?;
    render_page(StatusCode::OK, &PolicyPage { frame, keys: policy_fields(&policy), fault: None, done: None })
}

/// Changes one key.
pub(super) async fn update(sent: SubmittedForm) -> Result<Response> {
    let frame = PageFrame::new(&sent.caller, ConsoleSection::Policy);
    let (tokens, who) = (sent.caller.state.tokens.clone(), sent.caller.authority());
    let key = sent.fields.text("key").unwrap_or_default().to_owned();
    let value = sent.fields.text("value").unwrap_or_default().to_owned();
    in_turn(sent.caller.light(), move || {
        let (status, policy, fault) = match tokens.set_policy(&who, &key, &value) {
            Ok(policy) => (StatusCode::OK, policy, None),
            Err(error @ crate::tokens::Error::InvalidSetting(_)) => {
                let fault = super::error::ConsoleError::from(error);
                (fault.status(), tokens.policy(&who)?, Some(fault.public_message()))
            }
            Err(error) => return Err(error.into()),
        };
        let done = fault.is_none().then(|| format!("{key} is {value} now."));
        render_page(status, &PolicyPage { frame, keys: policy_fields(&policy), fault, done })
    })
    .await
}
