//! Names of webhooks: only addresses that may be reached come out, and the connection goes to one of these. A name that
//! leads elsewhere a moment later (DNS rebinding) gains nothing.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::net::ReachableAddresses;

/// Addresses of a name, or why there are none.
pub(super) type LookedUp = Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>>;
/// Function that looks a name up.
pub(super) type HostLookup = Arc<dyn Fn(String) -> LookedUp + Send + Sync>;

/// Resolver that hands out addresses that may be reached alone.
#[derive(Clone)]
pub(super) struct WebhookResolver {
    pub(super) reachable: ReachableAddresses,
    pub(super) look_up: HostLookup,
}

/// A name without an address that may be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0} leads to addresses that are not public alone: allow their network with webhook_networks")]
pub(super) struct UnreachableHost(pub(super) String);

impl WebhookResolver {
    /// Creates a resolver that asks the system.
    pub(super) fn new(reachable: ReachableAddresses) -> Self {
        Self { reachable, look_up: Arc::new(|name| Box::pin(look_up_by_system(name))) }
    }
}

async fn look_up_by_system(name: String) -> std::io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
}

impl Resolve for WebhookResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, Self { reachable, look_up }) = (name.as_str().to_owned(), self.clone());
        Box::pin(async move {
            let found = look_up(name.clone()).await?;
            // Port 0 stands for that of the URL.
            let allowed: Vec<_> = found.into_iter().filter(|address| reachable.contains(*address)).collect();
            if allowed.is_empty() {
                return Err(UnreachableHost(name).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
