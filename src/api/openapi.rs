//! The OpenAPI document: its frame, and the responses that calls have in common.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::Ref;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, Header, InfoBuilder, OpenApi, OpenApiBuilder, RefOr};

use super::error::ProblemDetails;
use crate::domain::schema;

/// Error responses of every call.
pub(super) struct CommonResponses;

/// Further error responses of a call with a query.
pub(super) struct QueryResponses;

/// Further error responses of a call with a body.
pub(super) struct BodyResponses;

/// Further error responses of a call on a named resource.
pub(super) struct ResourceResponses;

/// Name of the schema of [`ProblemDetails`].
const PROBLEM_SCHEMA_NAME: &str = "Problem";

type ResponsesByStatus = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for CommonResponses {
    fn responses() -> ResponsesByStatus {
        let mut responses = problem_responses(&[
            ("401", "The caller is not authenticated"),
            ("403", "A page of another origin sent a state-changing request with the browser's stored password"),
            ("406", "The request does not accept JSON"),
            ("429", "Too many failed attempts from this address"),
            ("500", "Internal server error"),
            (
                "503",
                "The queue of secrets to hash is full, the store is busy, or the served directory is not available",
            ),
            ("507", "The store has no space left"),
        ]);
        for (status, name) in [("401", "WWW-Authenticate"), ("429", "Retry-After"), ("503", "Retry-After")] {
            if let Some(RefOr::T(response)) = responses.get_mut(status) {
                response.headers.insert(name.to_owned(), RefOr::T(Header::default()));
            }
        }
        responses
    }
}

impl IntoResponses for QueryResponses {
    fn responses() -> ResponsesByStatus {
        problem_responses(&[("400", "The query can't be parsed"), ("422", "A value of the query is invalid")])
    }
}

impl IntoResponses for BodyResponses {
    fn responses() -> ResponsesByStatus {
        problem_responses(&[
            ("400", "The body can't be parsed"),
            ("409", "Conflicts with the present state"),
            ("413", "The body is larger than 64 KiB"),
            ("415", "The body has another media type"),
            ("422", "A value is invalid"),
        ])
    }
}

impl IntoResponses for ResourceResponses {
    fn responses() -> ResponsesByStatus {
        problem_responses(&[
            (
                "403",
                "The caller lacks a role or access to the node, or a page of another origin sent a state-changing request",
            ),
            ("404", "The resource does not exist, or the caller may not see it"),
            ("409", "Conflicts with the present state"),
        ])
    }
}

fn problem_responses(statuses: &[(&str, &str)]) -> ResponsesByStatus {
    let problem_response = |description: &str| {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(PROBLEM_SCHEMA_NAME))).build();
        ResponseBuilder::new().description(description).content("application/problem+json", problem).build()
    };
    statuses
        .iter()
        .map(|(status, description)| ((*status).to_owned(), RefOr::T(problem_response(description))))
        .collect()
}

/// Returns the document without paths.
pub(super) fn base_document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("patgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Personal access tokens, their owners, and their access."));
    let http = |scheme| SecurityScheme::Http(Http::new(scheme));
    let components = schema::all_schemas()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| components.schema(name, schema))
        .schema_from::<ProblemDetails>()
        .security_scheme("bearer", http(HttpAuthScheme::Bearer))
        .security_scheme("basic", http(HttpAuthScheme::Basic));
    let no_scopes = Vec::<String>::new;
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components.build()))
        .security(Some([
            SecurityRequirement::new("bearer", no_scopes()),
            SecurityRequirement::new("basic", no_scopes()),
        ]))
        .build()
}
