//! Listeners that the service manager holds and passes to the process (`sd_listen_fds(3)`), so that clients that connect
//! while the server restarts wait instead of being refused.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use listenfd::ListenFd;
use rustix::net::sockopt;

/// Variable with the names of the sockets, separated by colons.
const NAMES_VARIABLE: &str = "LISTEN_FDNAMES";

/// Reason why the sockets of the service manager can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedListenerError {
    /// A socket has a name that no listener has.
    #[error("the service manager passes a socket named {0:?}: FileDescriptorName= must be http, sftp or metrics")]
    UnknownName(String),
    /// Two sockets have the same name.
    #[error("the service manager passes two sockets named {0}: one address can be listened on")]
    SameName(&'static str),
    /// The descriptor is not a socket that accepts TCP connections.
    #[error("the socket {name} of the service manager does not accept TCP connections: {reason}")]
    NotAListener {
        /// Name of the socket.
        name: String,
        /// Reason.
        reason: String,
    },
}

/// Listeners that the service manager has passed; clones share the sockets.
#[derive(Clone, Debug, Default)]
pub struct InheritedListeners {
    http: Option<Arc<TcpListener>>,
    sftp: Option<Arc<TcpListener>>,
    metrics: Option<Arc<TcpListener>>,
}

impl InheritedListeners {
    /// Takes the sockets that were passed to this process. Call it once, before the first thread is started: it removes
    /// the variables that announce them.
    ///
    /// # Errors
    /// [`InheritedListenerError`] where a socket is not one of those that this program serves.
    pub fn from_environment() -> Result<Self, InheritedListenerError> {
        let names = std::env::var(NAMES_VARIABLE).unwrap_or_default();
        let mut names = names.split(':');
        let (mut sockets, mut listeners) = (ListenFd::from_env(), Self::default());
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            listeners.insert(name, take_listener(&mut sockets, index, name)?)?;
        }
        Ok(listeners)
    }

    fn insert(&mut self, name: &str, listener: TcpListener) -> Result<(), InheritedListenerError> {
        let (name, slot) = match name {
            "http" => ("http", &mut self.http),
            "sftp" => ("sftp", &mut self.sftp),
            "metrics" => ("metrics", &mut self.metrics),
            other => return Err(InheritedListenerError::UnknownName(other.to_owned())),
        };
        match slot.replace(Arc::new(listener)) {
            None => Ok(()),
            Some(_) => Err(InheritedListenerError::SameName(name)),
        }
    }

    /// Returns the HTTP listener, where it was passed. Call it in the runtime.
    pub fn http(&self) -> Option<io::Result<tokio::net::TcpListener>> {
        self.http.as_deref().map(share_listener)
    }

    /// Returns the SFTP listener, where it was passed. Call it in the runtime.
    pub fn sftp(&self) -> Option<io::Result<tokio::net::TcpListener>> {
        self.sftp.as_deref().map(share_listener)
    }

    /// Returns the listener for metrics, where it was passed. Call it in the runtime.
    pub fn metrics(&self) -> Option<io::Result<tokio::net::TcpListener>> {
        self.metrics.as_deref().map(share_listener)
    }
}

fn take_listener(sockets: &mut ListenFd, index: usize, name: &str) -> Result<TcpListener, InheritedListenerError> {
    let error = |reason: String| InheritedListenerError::NotAListener { name: name.to_owned(), reason };
    let listener = sockets.take_tcp_listener(index).map_err(|found| error(found.to_string()))?;
    let listener = listener.ok_or_else(|| error("it was taken before".to_owned()))?;
    // A connected socket, as with Accept=yes, passes every check but this one.
    match sockopt::socket_acceptconn(&listener) {
        Ok(true) => Ok(listener),
        Ok(false) => Err(error("it is not listening; a socket unit needs ListenStream= and Accept=no".to_owned())),
        Err(found) => Err(error(found.to_string())),
    }
}

fn share_listener(listener: &TcpListener) -> io::Result<tokio::net::TcpListener> {
    let listener = listener.try_clone()?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_taken_once_and_others_are_refused() {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut listeners = InheritedListeners::default();
        listeners.insert("http", listener()).expect("its name");
        listeners.insert("sftp", listener()).expect("its name");
        listeners.insert("metrics", listener()).expect("its name");
        assert!(matches!(listeners.insert("http", listener()), Err(InheritedListenerError::SameName("http"))));
        for name in ["", "unknown", "patgate.socket"] {
            let refused = listeners.insert(name, listener());
            assert!(matches!(refused, Err(InheritedListenerError::UnknownName(found)) if found == name));
        }
    }
}
