//! Cross-origin resource sharing: which web applications a browser lets call the server (the Fetch standard, section
//! 3.3).
//!
//! A browser sends a preflight first, an OPTIONS request without credentials, and then requires the origin to be named
//! in the response itself, whatever its status. `Access-Control-Allow-Credentials` is never sent: an application sends
//! the token that it was given, and can't use a password that the browser has stored.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::domain::AllowedOrigins;
use crate::http::{ResponseBody, empty, is_path_within};

/// Path prefixes that web applications may call. The console is for its own pages alone.
const CORS_PATH_PREFIXES: [&str; 6] = ["/dav", "/node", "/remote.php", "/upload", "/api", "/auth"];
const ALLOWED_METHODS: &str =
    "OPTIONS, GET, HEAD, POST, PUT, PATCH, DELETE, MKCOL, PROPFIND, PROPPATCH, REPORT, COPY, MOVE, LOCK, UNLOCK";
/// Request headers that the server reads, and those that client libraries add.
const ALLOWED_REQUEST_HEADERS: &str = "\
    Accept, Accept-Language, Authorization, Cache-Control, Content-Digest, Content-Encoding, Content-Language, \
    Content-Range, Content-Type, Depth, Destination, If, If-Match, If-Modified-Since, If-None-Match, If-Range, \
    If-Unmodified-Since, Lock-Token, OC-Checksum, OC-Chunked, OC-Total-Length, OCS-APIRequest, Overwrite, Pragma, \
    Prefer, Range, Repr-Digest, Timeout, Upload-Complete, Upload-Draft-Interop-Version, Upload-Length, \
    Upload-Offset, Want-Repr-Digest, X-Expected-Entity-Length, X-OC-CTime, X-OC-Mtime, X-Patgate-Tags, \
    X-Requested-With, X-Update-Range";
/// Response headers that web applications may read: all that the server sends and they may need.
const EXPOSED_RESPONSE_HEADERS: &str = "\
    Accept-Patch, Accept-Ranges, Allow, Content-Disposition, Content-Length, Content-Range, DAV, Date, ETag, \
    Last-Modified, Link, Location, Lock-Token, MS-Author-Via, OC-Checksum, OC-ETag, Preference-Applied, Repr-Digest, \
    Retry-After, Upload-Complete, Upload-Limit, Upload-Length, Upload-Offset, WWW-Authenticate, X-OC-Mtime";
/// Seconds for which a browser may cache the response to a preflight.
const PREFLIGHT_MAX_AGE_SECONDS: u16 = 3600;

/// CORS headers of a response, as its request needs them.
pub(super) struct CorsHeaders {
    /// Origin that may read the response.
    allowed_origin: Option<HeaderValue>,
}

impl CorsHeaders {
    /// Reads the origin of a request; `None` where no origin is configured, or the path is not for web applications.
    pub(super) fn for_request<B>(origins: &AllowedOrigins, request: &Request<B>) -> Option<Self> {
        let is_shared = CORS_PATH_PREFIXES.iter().any(|prefix| is_path_within(request.uri().path(), prefix));
        if *origins == AllowedOrigins::None || !is_shared {
            return None;
        }
        let origin = request.headers().get(header::ORIGIN);
        Some(Self { allowed_origin: origin.filter(|origin| origins.allows(origin.as_bytes())).cloned() })
    }

    /// Adds the headers to a response.
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        // Caches have to keep responses to different origins apart, also those without permission.
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = self.allowed_origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED_RESPONSE_HEADERS));
        }
    }
}

/// Answers a preflight of an allowed origin; `None` for any other request.
pub(super) fn preflight_response<B>(origins: &AllowedOrigins, request: &Request<B>) -> Option<Response<ResponseBody>> {
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !is_preflight || CorsHeaders::for_request(origins, request)?.allowed_origin.is_none() {
        return None;
    }
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(ALLOWED_METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED_REQUEST_HEADERS));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(PREFLIGHT_MAX_AGE_SECONDS));
    // A page of a public site may call a server in a private network only with its permission.
    let private_network_header = HeaderName::from_static("access-control-request-private-network");
    if request.headers().get(private_network_header).is_some_and(|value| value == "true") {
        headers.insert("access-control-allow-private-network", HeaderValue::from_static("true"));
    }
    Some(response)
}
