//! Explain: why a token may, or may not, do something.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;

use super::blocking::in_turn;
use super::error::{ConsoleError, Result};
use super::guard::{ConsoleCaller, FormFields};
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use super::tokens::form;
use crate::domain::{AccessExplanation, AccessQuery, Protocol, TokenId, TreeOperation, TreePath};

/// What an operation is called in the form.
const OPERATION_LABELS: [(TreeOperation, &str); 9] = [
    (TreeOperation::Stat, "see that it is there"),
    (TreeOperation::List, "list a folder"),
    (TreeOperation::Read, "read or download"),
    (TreeOperation::Write, "replace or change"),
    (TreeOperation::Create, "make or upload a new one"),
    (TreeOperation::Delete, "delete"),
    (TreeOperation::Move, "rename or move"),
    (TreeOperation::Copy, "copy"),
    (TreeOperation::Link, "link"),
];

/// A grant or scope that allows.
struct ExplainSourceRow {
    place: String,
    href: String,
    permission: String,
}

/// An answer.
struct ExplainAnswer {
    allowed: bool,
    sentence: String,
    rule: String,
    needs: String,
    by: Vec<ExplainSourceRow>,
    provided: Vec<String>,
}

impl From<AccessExplanation> for ExplainAnswer {
    fn from(verdict: AccessExplanation) -> Self {
        let source = |source: &crate::domain::AccessSource| ExplainSourceRow {
            place: source.path.to_string(),
            href: format!("/console/files{}", paths::encode(&source.path)),
            permission: source.scope.permission.to_string(),
        };
        Self {
            allowed: verdict.allowed,
            rule: verdict.decided_by.to_string(),
            needs: verdict.needs.to_string(),
            by: verdict.by.iter().map(source).collect(),
            provided: verdict.provided,
            sentence: verdict.sentence,
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
    fault: Option<String>,
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
    let question = AccessQuery {
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
    question.with_target(path_field(fields, "to")?).map_err(|fault| ConsoleError::InvalidForm(fault.to_string()))
}

/// Asks, and answers once it was asked.
pub(super) async fn show(caller: ConsoleCaller, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response> {
    let fields = FormFields::from(pairs);
    let frame = PageFrame::new(&caller, ConsoleSection::Explain);
    let (tokens, who, own) = (caller.state.tokens.clone(), caller.authority(), caller.session().token());
    let token = fields.text("token").unwrap_or(own.as_str()).to_owned();
    let operations = OPERATION_LABELS.iter().map(|(operation, text)| (operation.as_str(), *text)).collect();
    in_turn(caller.light(), move || {
        let asked = fields.text("path").is_some();
        let ask = || -> Result<ExplainAnswer> {
            let id: TokenId =
                token.parse().map_err(|why: crate::domain::TokenError| ConsoleError::InvalidForm(why.to_string()))?;
            Ok(tokens.explain(&who, id, &access_query(&fields)?)?.into())
        };
        let answer = asked.then(ask).transpose();
        let (status, answer, fault) = match answer {
            Ok(answer) => (StatusCode::OK, answer, None),
            Err(fault) if fault.status().is_server_error() => return Err(fault),
            Err(fault) => (fault.status(), None, Some(fault.public_message())),
        };
        render_page(status, &ExplainPage { frame, fields, token, operations, answer, fault })
    })
    .await
}
