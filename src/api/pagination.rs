//! Lists in pages: `?limit` and `?cursor`, and a `Link` to the next page (RFC 8288).
//!
//! A cursor names the last entry of a page, so that entries that are created or deleted meanwhile shift nothing.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use serde::Serialize;

use super::{Error, Result};
use crate::domain::ALL_BUT_UNRESERVED;
use crate::tokens;

/// Number of entries of a page by default.
const DEFAULT_PAGE_ENTRIES: usize = 100;
/// Maximum number of entries of a page.
const MAX_PAGE_ENTRIES: usize = 500;

/// The response with one page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageResponse<T> {
    entries: Vec<T>,
    next_link: Option<String>,
}

/// Checks the requested number of entries.
///
/// # Errors
/// [`Error::Malformed`] for zero, or more than [`MAX_PAGE_ENTRIES`].
pub(super) fn page_limit(requested: Option<usize>) -> Result<usize> {
    match requested.unwrap_or(DEFAULT_PAGE_ENTRIES) {
        limit @ 1..=MAX_PAGE_ENTRIES => Ok(limit),
        _ => Err(Error::Malformed(format!("limit must be from 1 to {MAX_PAGE_ENTRIES}"))),
    }
}

impl<T> PageResponse<T> {
    /// Converts a page that was requested at `uri`. `cursor` formats the cursor of the next page, `convert` each item.
    pub(super) fn new<U, K>(
        uri: &Uri,
        page: tokens::ResultPage<U, K>,
        cursor: impl Fn(K) -> String,
        convert: impl Fn(U) -> T,
    ) -> Self {
        let link = page.next.map(|next| next_page_link(uri, &cursor(next)));
        Self { entries: page.items.into_iter().map(convert).collect(), next_link: link }
    }
}

impl<T: Serialize> IntoResponse for PageResponse<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.entries).into_response();
        if let Some(link) = self.next_link.and_then(|link| HeaderValue::try_from(link).ok()) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

/// Characters that are encoded in a cursor: all but the unreserved ones and the `@` of logins.
const ENCODED_IN_CURSOR: &AsciiSet = &ALL_BUT_UNRESERVED.remove(b'@');

/// Returns the `Link` header to the next page: the same URI with another cursor.
fn next_page_link(uri: &Uri, cursor: &str) -> String {
    let other_pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    // All other parameters are kept byte by byte, so that the next page has the same filter.
    let other_pairs = other_pairs.filter(|pair| !pair.starts_with("cursor="));
    let cursor = format!("cursor={}", utf8_percent_encode(cursor, ENCODED_IN_CURSOR));
    let query = other_pairs.chain([cursor.as_str()]).collect::<Vec<_>>().join("&");
    format!("<{}?{query}>; rel=\"next\"", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_link_replaces_only_the_cursor() {
        let uri: Uri = "/api/v1/users?state=a%2Bb&cursor=old&limit=2".parse().expect("uri");
        let next = "</api/v1/users?state=a%2Bb&limit=2&cursor=x%2By>; rel=\"next\"";
        assert_eq!(next_page_link(&uri, "x+y"), next);
        assert_eq!(
            next_page_link(&"/x".parse().expect("uri"), "a@b-._~ é"),
            "</x?cursor=a@b-._~%20%C3%A9>; rel=\"next\""
        );
        assert_eq!(next_page_link(&"/x".parse().expect("uri"), "new"), "</x?cursor=new>; rel=\"next\"");
    }

    #[test]
    fn last_page_has_no_next_link() {
        let page = |next| tokens::ResultPage { items: vec![1, 2], next };
        let convert =
            |page| PageResponse::new(&Uri::from_static("/x"), page, |key: u8| key.to_string(), |item| item * 10);
        assert_eq!(convert(page(None)), PageResponse { entries: vec![10, 20], next_link: None });
        assert_eq!(convert(page(Some(2))).next_link.as_deref(), Some("</x?cursor=2>; rel=\"next\""));
    }

    #[test]
    fn page_limit_is_bounded() {
        assert_eq!(page_limit(None).expect("usual"), DEFAULT_PAGE_ENTRIES);
        assert!(page_limit(Some(0)).is_err() && page_limit(Some(MAX_PAGE_ENTRIES + 1)).is_err());
    }
}
