//! The page that explains why a token may, or may not, carry out an operation.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::guard::{ConsoleCaller, FormFields};
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use super::tokens::form;
use crate::domain::{AccessExplanation, AccessQuery, Protocol, TokenId, TreeOperation, TreePath};

/// Names of the operations in the form.
const OPERATION_LABELS: [(TreeOperation, &str); 9] = [
    (TreeOperation::Stat, "see that it exists"),
    (TreeOperation::List, "list a folder"),
    (TreeOperation::Read, "read or download"),
    (TreeOperation::Write, "replace or change"),
    (TreeOperation::Create, "create or upload"),
    (TreeOperation::Delete, "delete"),
    (TreeOperation::Move, "rename or move"),
    (TreeOperation::Copy, "copy"),
    (TreeOperation::Link, "link"),
];

/// A grant or scope that allows the operation.
struct ExplainSourceRow {
    path: String,
    href: String,
    permission: String,
}

/// The explanation as the page shows it.
struct ExplainAnswer {
    allowed: bool,
    sentence: String,
    rule: String,
    needs: String,
    allowed_by: Vec<ExplainSourceRow>,
    unchecked_limits: Vec<String>,
}

impl From<AccessExplanation> for ExplainAnswer {
    fn from(explanation: AccessExplanation) -> Self {
        let source = |source: &crate::domain::AccessSource| ExplainSourceRow {
            path: source.path.to_string(),
            href: format!("/console/files{}", paths::encode(&source.path)),
            permission: source.scope.permission.to_string(),
        };
        Self {
            allowed: explanation.allowed,
            rule: explanation.decided_by.to_string(),
            needs: explanation.needs.to_string(),
            allowed_by: explanation.allowed_by.iter().map(source).collect(),
            unchecked_limits: explanation.unchecked_limits,
            sentence: explanation.sentence,
        }
    }
}

#[derive(Template)]
#[template(path = "explain.html")]
struct ExplainPage {
    frame: PageFrame,
    fields: FormFields,
    token: String,
    operations: Vec<(&'static str, &'static str)>,
    answer: Option<ExplainAnswer>,
    error: Option<String>,
}

impl ExplainPage {
    fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or_default()
    }
}

fn path_field(fields: &FormFields, name: &str) -> Result<Option<TreePath>> {
    fields.text(name).map(form::parse_path).transpose()
}

fn access_query(fields: &FormFields) -> Result<AccessQuery> {
    let operation = fields.parse("op")?.unwrap_or(TreeOperation::Read);
    let query = AccessQuery {
        operation,
        path: path_field(fields, "path")?.unwrap_or_default(),
        target: None,
        protocol: fields.parse::<Protocol>("protocol")?,
        address: fields.parse("address")?,
        user_agent: fields.text("program").map(str::to_owned),
        size: fields.parse("size")?,
        mime: fields.text("mime").map(str::to_owned),
        tags: fields.parse("tag")?.into_iter().collect(),
    };
    query.with_target(path_field(fields, "to")?).map_err(|error| ConsoleError::InvalidForm(error.to_string()))
}

/// Shows the form, with the explanation below it once the form has been submitted.
pub(super) async fn show(caller: ConsoleCaller, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response> {
    let fields = FormFields::from(pairs);
    let frame = PageFrame::new(&caller, ConsoleSection::Explain);
    let (tokens, principal, own_token) = (caller.state.tokens.clone(), caller.principal(), caller.session().token());
    let token = fields.text("token").unwrap_or(own_token.as_str()).to_owned();
    let operations = OPERATION_LABELS.iter().map(|(operation, label)| (operation.as_str(), *label)).collect();
    run_with_permit(caller.light_permit(), move || {
        let is_submitted = fields.text("path").is_some();
        let explain = || -> Result<ExplainAnswer> {
            let id: TokenId =
                token.parse().map_err(|why: crate::domain::TokenError| ConsoleError::InvalidForm(why.to_string()))?;
            Ok(tokens.explain(&principal, id, &access_query(&fields)?)?.into())
        };
        let answer = is_submitted.then(explain).transpose();
        let (status, answer, error) = match answer {
            Ok(answer) => (StatusCode::OK, answer, None),
            Err(error) if error.status().is_server_error() => return Err(error),
            Err(error) => (error.status(), None, Some(error.public_message())),
        };
        render_page(status, &ExplainPage { frame, fields, token, operations, answer, error })
    })
    .await
}
