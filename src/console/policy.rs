//! The policy that bounds new tokens.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::blocking::run_with_permit;
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
    error: Option<String>,
    success_message: Option<String>,
}

fn policy_fields(policy: &Policy) -> Vec<PolicyField> {
    let key = |name, value: String, title, hint| PolicyField { name, value, title, hint };
    vec![
        key(
            "max-tokens-per-user",
            policy.max_tokens_per_user.to_string(),
            "Maximum tokens per user",
            "Counts live tokens. A user who has more already keeps them.",
        ),
        key(
            "default-lifetime",
            policy.default_lifetime.to_string(),
            "Default lifetime of a token",
            "Such as 90d; not longer than the maximum lifetime.",
        ),
        key(
            "max-lifetime",
            policy.max_lifetime.to_string(),
            "Maximum lifetime of a token",
            "Such as 1Y; also limits sliding windows.",
        ),
        key("allow-never", policy.allow_never.to_string(), "Tokens without expiration", "Existing ones stay valid."),
        key(
            "token-retention",
            policy.token_retention.to_string(),
            "Retention of expired and revoked tokens",
            "After that they are deleted from the lists.",
        ),
        key(
            "audit-retention",
            policy.audit_retention.to_string(),
            "Retention of the audit trail",
            "After that its events are deleted.",
        ),
    ]
}

/// Shows the policy.
pub(super) async fn show(caller: ConsoleCaller) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Policy);
    let (tokens, principal) = (caller.state.tokens.clone(), caller.principal());
    let policy = run_with_permit(caller.light_permit(), move || Ok(tokens.policy(&principal)?)).await?;
    render_page(StatusCode::OK, &PolicyPage { frame, keys: policy_fields(&policy), error: None, success_message: None })
}

/// Changes one key of the policy.
pub(super) async fn update(submitted: SubmittedForm) -> Result<Response> {
    let frame = PageFrame::new(&submitted.caller, ConsoleSection::Policy);
    let (tokens, principal) = (submitted.caller.state.tokens.clone(), submitted.caller.principal());
    let key = submitted.fields.text("key").unwrap_or_default().to_owned();
    let value = submitted.fields.text("value").unwrap_or_default().to_owned();
    run_with_permit(submitted.caller.light_permit(), move || {
        let (status, policy, error) = match tokens.set_policy(&principal, &key, &value) {
            Ok(policy) => (StatusCode::OK, policy, None),
            Err(error @ crate::tokens::Error::InvalidSetting(_)) => {
                let error = super::error::ConsoleError::from(error);
                (error.status(), tokens.policy(&principal)?, Some(error.public_message()))
            }
            Err(error) => return Err(error.into()),
        };
        let success_message = error.is_none().then(|| format!("{key} is now {value}."));
        render_page(status, &PolicyPage { frame, keys: policy_fields(&policy), error, success_message })
    })
    .await
}
