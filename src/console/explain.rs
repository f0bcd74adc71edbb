//! Explain: why a token may, or may not, do something.

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;

use super::fault::{Fault, Result, in_turn};
use super::guard::{Caller, Fields};
use super::page::{Frame, Part, render};
use super::place;
use super::tokens::form;
use crate::domain::{AccessExplanation, AccessQuery, Protocol, TokenId, TreeOperation, TreePath};

/// What an operation is called in the form.
const OPERATIONS: [(TreeOperation, &str); 9] = [
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
struct Source {
    place: String,
    href: String,
    permission: String,
}

/// An answer.
struct Answer {
    allowed: bool,
    sentence: String,
    rule: String,
    needs: String,
    by: Vec<Source>,
    provided: Vec<String>,
}

impl From<AccessExplanation> for Answer {
    fn from(verdict: AccessExplanation) -> Self {
        let source = |source: &crate::domain::AccessSource| Source {
            place: source.path.to_string(),
            href: format!("/console/files{}", place::encode(&source.path)),
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
struct Page {
    frame: Frame,
    fields: Fields,
    token: String,
    operations: Vec<(&'static str, &'static str)>,
    answer: Option<Answer>,
    fault: Option<String>,
}

impl Page {
    fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.fields.text(name).unwrap_or_default()
    }
}

fn path(fields: &Fields, name: &str) -> Result<Option<TreePath>> {
    fields.text(name).map(form::path).transpose()
}

fn question(fields: &Fields) -> Result<AccessQuery> {
    let operation = fields.read("op")?.unwrap_or(TreeOperation::Read);
    let question = AccessQuery {
        operation,
        path: path(fields, "path")?.unwrap_or_default(),
        target: None,
        protocol: fields.read::<Protocol>("protocol")?,
        address: fields.read("address")?,
        user_agent: fields.text("program").map(str::to_owned),
        size: fields.read("size")?,
        mime: fields.text("mime").map(str::to_owned),
        tags: fields.read("tag")?.into_iter().collect(),
    };
    question.with_target(path(fields, "to")?).map_err(|fault| Fault::Form(fault.to_string()))
}

/// Asks, and answers once it was asked.
pub(super) async fn show(caller: Caller, Query(pairs): Query<Vec<(String, String)>>) -> Result<Response> {
    let fields = Fields::from(pairs);
    let frame = Frame::new(&caller, Part::Explain);
    let (tokens, who, own) = (caller.shared.tokens.clone(), caller.authority(), caller.session().token());
    let token = fields.text("token").unwrap_or(own.as_str()).to_owned();
    let operations = OPERATIONS.iter().map(|(operation, text)| (operation.as_str(), *text)).collect();
    in_turn(caller.light(), move || {
        let asked = fields.text("path").is_some();
        let ask = || -> Result<Answer> {
            let id: TokenId = token.parse().map_err(|why: crate::domain::TokenError| Fault::Form(why.to_string()))?;
            Ok(tokens.explain(&who, id, &question(&fields)?)?.into())
        };
        let answer = asked.then(ask).transpose();
        let (status, answer, fault) = match answer {
            Ok(answer) => (StatusCode::OK, answer, None),
            Err(fault) if fault.status().is_server_error() => return Err(fault),
            Err(fault) => (fault.status(), None, Some(fault.told())),
        };
        render(status, &Page { frame, fields, token, operations, answer, fault })
    })
    .await
}
