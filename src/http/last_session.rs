//! The session that the last request of a connection opened: nearly every request repeats the credential before it.

use std::net::IpAddr;

use http::{HeaderMap, header};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::auth::Session;
use crate::domain::Protocol;

/// Session of the last authenticated request of a connection, and the `Authorization` header that opened it.
#[derive(Default)]
pub struct LastSession(Mutex<Option<OpenedSession>>);

struct OpenedSession {
    /// A copy: the header itself is a part of the whole read buffer, which would stay with an idle connection.
    authorization: Zeroizing<Vec<u8>>,
    session: Session,
}

impl LastSession {
    /// Returns the session if a request with these headers, from this address, would open one of the same credential and
    /// peer, and the session still answers requests ([`Session::reuse`]).
    pub fn get(&self, headers: &HeaderMap, protocol: Protocol, address: IpAddr) -> Option<Session> {
        let authorization = headers.get(header::AUTHORIZATION)?.as_bytes();
        let mut last = self.0.lock();
        let opened = last.as_ref()?;
        let peer = opened.session.peer();
        let is_same_peer =
            (peer.protocol, peer.address, peer.user_agent.as_deref()) == (protocol, address, user_agent(headers));
        // Behind a proxy, requests of several clients share a connection: none may find out another's secret by time.
        if !is_same_peer || !bool::from(opened.authorization.as_slice().ct_eq(authorization)) {
            return None;
        }
        let reused = opened.session.reuse();
        if reused.is_none() {
            *last = None;
        }
        reused
    }

    /// Remembers the session that a request with these headers has opened, in place of the one before.
    pub fn set(&self, headers: &HeaderMap, session: &Session) {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else { return };
        let authorization = Zeroizing::new(authorization.as_bytes().to_vec());
        *self.0.lock() = Some(OpenedSession { authorization, session: session.clone() });
    }
}

/// Returns the `User-Agent` header; `None` where it is missing or not visible ASCII, by which a limit on user agents takes
/// it as empty.
pub fn user_agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;

    use super::*;
    use crate::auth::testing::AuthEnv;
    use crate::domain::{TokenExpiry, TokenText};

    fn request_headers(login: &str, text: &TokenText) -> HeaderMap {
        let pair = STANDARD.encode(format!("{login}:{}", text.reveal().as_str()));
        HeaderMap::from_iter([
            (header::AUTHORIZATION, HeaderValue::try_from(format!("Basic {pair}")).expect("a header")),
            (header::USER_AGENT, HeaderValue::from_static("test/1")),
        ])
    }

    /// Environment with a session that a request of alice has opened, and the headers of that request.
    async fn opened(last: &LastSession) -> (AuthEnv, TokenText, HeaderMap, Session) {
        let env = AuthEnv::new();
        let text = env.create_token(TokenExpiry::Never, |_| ());
        let session = env.login(&text).await.expect("accepted");
        let headers = request_headers("alice", &text);
        last.set(&headers, &session);
        (env, text, headers, session)
    }

    fn get(last: &LastSession, headers: &HeaderMap) -> Option<u64> {
        last.get(headers, Protocol::Webdav, IpAddr::from([192, 0, 2, 1])).map(|session| session.number())
    }

    #[tokio::test]
    async fn request_with_the_same_headers_gets_the_session() {
        let last = LastSession::default();
        let (env, text, headers, session) = opened(&last).await;
        assert_eq!(get(&last, &headers), Some(session.number()));
        let other_token = env.create_token(TokenExpiry::Never, |_| ());
        let mut other_agent = headers.clone();
        other_agent.insert(header::USER_AGENT, HeaderValue::from_static("test/2"));
        let mut no_agent = headers.clone();
        no_agent.remove(header::USER_AGENT);
        for other in [
            request_headers("alice", &other_token),
            request_headers("bob", &text),
            other_agent,
            no_agent,
            HeaderMap::new(),
        ] {
            assert_eq!(get(&last, &other), None, "{other:?}");
        }
        assert!(last.get(&headers, Protocol::Webdav, IpAddr::from([192, 0, 2, 2])).is_none(), "another address");
        assert!(last.get(&headers, Protocol::Api, IpAddr::from([192, 0, 2, 1])).is_none(), "another protocol");
        assert_eq!(get(&last, &headers), Some(session.number()), "a request of another client ends nothing");
    }

    #[tokio::test]
    async fn change_in_the_store_ends_the_reuse_at_once() {
        let last = LastSession::default();
        let (env, text, headers, _session) = opened(&last).await;
        // By another process, and before the watcher has looked.
        let second_store = env.open_second_store();
        let other = env.create_token(TokenExpiry::Never, |_| ());
        second_store.revoke_tokens(&[other.id()], env.clock.now()).expect("revoked");
        assert_eq!(get(&last, &headers), None, "in doubt the store is read");
        last.set(&headers, &env.login(&text).await.expect("still valid"));
        assert!(get(&last, &headers).is_some());
        second_store.revoke_tokens(&[text.id()], env.clock.now()).expect("revoked");
        assert_eq!(get(&last, &headers), None);
    }

    #[tokio::test]
    async fn session_is_reused_for_a_minute_and_not_past_its_expiration_or_eviction() {
        let last = LastSession::default();
        let (env, text, headers, session) = opened(&last).await;
        env.clock.advance(Duration::from_secs(59));
        assert!(get(&last, &headers).is_some());
        env.clock.advance(Duration::from_secs(1));
        assert_eq!(get(&last, &headers), None);

        let second = env.login(&text).await.expect("accepted");
        last.set(&headers, &second);
        assert!(env.auth.close_session(session.token(), second.number()));
        assert_eq!(get(&last, &headers), None);

        let expiry = TokenExpiry::Hard(env.clock.now().saturating_add(Duration::from_secs(10)));
        let short = env.create_token(expiry, |_| ());
        let headers = request_headers("alice", &short);
        last.set(&headers, &env.login(&short).await.expect("accepted"));
        assert!(get(&last, &headers).is_some());
        env.clock.advance(Duration::from_secs(10));
        assert_eq!(get(&last, &headers), None);
    }
}
