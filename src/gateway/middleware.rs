//! Middleware of every request and response: normalizes the target, determines the address at which the client sees the
//! server, and adds the CORS headers.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};

use super::cors::CorsHeaders;
use super::last_host::LastHost;
use crate::domain::{AllowedOrigins, PublicUrl};
use crate::http::{PublicAddress, ResponseBody, TrustedProxies, normalized_target};

/// Settings of the middleware.
#[derive(Clone)]
pub(super) struct RequestMiddleware {
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) public_url: Option<PublicUrl>,
    pub(super) cors_origins: AllowedOrigins,
}

impl RequestMiddleware {
    /// Prepares a request, has `next` answer it, and completes the response.
    pub(super) async fn handle<B>(
        &self,
        peer: IpAddr,
        last_host: &LastHost,
        mut request: Box<Request<B>>,
        next: impl AsyncFnOnce(Box<Request<B>>) -> Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        // Before routing: two spellings of a path (`//`, `%64av`) must not lead to different modules or checks.
        if let Some(target) = normalized_target(request.uri()) {
            *request.uri_mut() = target;
        }
        let address = last_host.address(&request).unwrap_or_else(|| {
            let forwarding = self.proxies.forwarded_address(peer, request.headers());
            PublicAddress::new(self.public_url.as_ref(), forwarding, request.uri(), request.headers())
        });
        request.extensions_mut().insert(address);
        // Read here, since the handler consumes the request. Refusals get the headers, too: without them a browser
        // hides their status from the page.
        let cors = CorsHeaders::for_request(&self.cors_origins, &request);
        let mut response = pin!(next(request)).await;
        if let Some(cors) = cors {
            cors.apply(response.headers_mut());
        }
        response
    }
}
