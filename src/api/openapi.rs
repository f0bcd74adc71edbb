//! The OpenAPI document: what every call has in common, and how it is put together.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::Ref;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, ContentBuilder, Header, InfoBuilder, OpenApi, OpenApiBuilder, RefOr};

use super::error::ProblemDetails;
use super::schema;

/// What every call may answer.
pub(super) struct CommonResponses;

/// What a call with a query may answer besides.
pub(super) struct QueryResponses;

/// What a call with a body may answer besides.
pub(super) struct BodyResponses;

/// What a call that names something may answer besides.
pub(super) struct ResourceResponses;

/// The name of the problem's schema.
const PROBLEM_SCHEMA_NAME: &str = "Problem";

type ResponsesByStatus = BTreeMap<String, RefOr<Response>>;

impl IntoResponses for CommonResponses {
    fn responses() -> ResponsesByStatus {
        let mut responses = problem_responses(&[
            ("401", "The caller is not proven"),
            ("403", "A page of another origin asks for a change with a password that the browser keeps"),
            ("406", "The request does not accept JSON"),
            ("429", "Too many failed attempts from this address"),
            ("500", "The server has a fault"),
            (
                "503",
                "Too many secrets, shown for the first time or to be made, wait to be hashed, the store is busy, or the \
                 served folder is not there now",
            ),
            ("507", "There is no space for it in the store"),
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
        problem_responses(&[("400", "The query can't be read"), ("422", "A value of the query can't be")])
    }
}

impl IntoResponses for BodyResponses {
    fn responses() -> ResponsesByStatus {
        problem_responses(&[
            ("400", "The body can't be read"),
            ("409", "What is there stands against it"),
            ("413", "The body is larger than 64 KiB"),
            ("415", "The body is of another type"),
            ("422", "A value can't be"),
        ])
    }
}

impl IntoResponses for ResourceResponses {
    fn responses() -> ResponsesByStatus {
        problem_responses(&[
            ("403", "A role, or access to the node, is missing, or a page of another origin asks for a change"),
            ("404", "There is no such thing, or none that the caller may see"),
            ("409", "What is there stands against it"),
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

/// Returns the document without its paths.
pub(super) fn base_document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("patgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Personal access tokens, their owners, and what they may reach."));
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
