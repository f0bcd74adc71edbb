//! Requests that a browser sends on behalf of a page of another origin.

use http::HeaderMap;

use super::PublicAddress;

/// Tells whether a browser sent a request for a page of another origin: by `Sec-Fetch-Site` (Fetch Metadata), or by
/// `Origin` (RFC 6454) where a browser doesn't send that. A client that sends neither is not a browser.
///
/// A page that was loaded over plain HTTP is of another origin than a server that the browser reaches over TLS
/// (`encrypted`): anybody on the network path may have written it.
pub fn is_cross_origin(server: &PublicAddress, encrypted: bool, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    // `Sec-Fetch-Site` wins: the browser itself has compared the origins, whatever names a proxy gives the server.
    match (text("sec-fetch-site"), text("origin")) {
        // `none` is a request of the user: a bookmark, or a typed address. `same-site` is another origin.
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        // `null`, the origin of a sandboxed page, has no scheme, and is foreign.
        (None, Some(origin)) => !origin.split_once("://").is_some_and(|(scheme, authority)| {
            (scheme.eq_ignore_ascii_case("https") || (!encrypted && scheme.eq_ignore_ascii_case("http")))
                && server.matches_authority(scheme.as_bytes(), authority.as_bytes())
        }),
        (None, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ForwardedAddress;
    use http::Uri;

    #[test]
    fn only_own_pages_are_same_origin() {
        let crosses = |encrypted: bool, pairs: &[(&'static str, &'static str)]| {
            let headers: HeaderMap = pairs
                .iter()
                .map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")))
                .collect();
            let server =
                PublicAddress::new(None, ForwardedAddress::default(), &Uri::from_static("/console/sign-in"), &headers);
            is_cross_origin(&server, encrypted, &headers)
        };
        let own_origin_headers: [&[(&str, &str)]; 4] = [
            &[],
            &[("sec-fetch-site", "same-origin"), ("origin", "https://proxy"), ("host", "inner")],
            &[("sec-fetch-site", "none")],
            &[("origin", "https://here:8080"), ("host", "here:8080")],
        ];
        for pairs in own_origin_headers {
            assert!(!crosses(false, pairs) && !crosses(true, pairs), "{pairs:?}");
        }
        let foreign: [&[(&str, &str)]; 7] = [
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site"), ("origin", "http://here"), ("host", "here")],
            &[("origin", "http://there"), ("host", "here")],
            &[("origin", "null"), ("host", "here")],
            &[("origin", "http://here:8081"), ("host", "here:8080")],
            &[("origin", "app://here"), ("host", "here")],
            &[("sec-fetch-site", "")],
        ];
        for pairs in foreign {
            assert!(crosses(false, pairs) && crosses(true, pairs), "{pairs:?}");
        }
        let clear: &[(&str, &str)] = &[("origin", "http://here"), ("host", "here")];
        assert!(!crosses(false, clear));
        assert!(crosses(true, clear), "a page in the clear, a server over TLS");
    }
}
