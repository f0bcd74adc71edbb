//! Sessions that are open: who may see them, and who may end them though their tokens live.

use super::{Error, Principal, Result, TokenService};
use crate::auth::{Authenticator, OpenSession};
use crate::domain::{AuditEvent, EventKind, Role, TokenId};

impl TokenService {
    /// Returns the open sessions of the tokens that the caller may look at, the latest first.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn sessions(&self, who: &Principal, auth: &Authenticator) -> Result<Vec<OpenSession>> {
        let caller = who.authorized_caller()?;
        let mut seen = Vec::new();
        let mut opened = auth.sessions();
        opened.sort_by_key(|session| (session.token, std::cmp::Reverse(session.number)));
        for group in opened.chunk_by(|one, other| one.token == other.token) {
            let Some(first) = group.first() else { continue };
            match self.find_record(first.token).and_then(|record| caller.require_visible(&self.store, &record)) {
                Ok(()) => seen.extend_from_slice(group),
                Err(Error::UnknownToken(_)) => {}
                Err(error) => return Err(error),
            }
        }
        seen.sort_by_key(|session| std::cmp::Reverse(session.number));
        Ok(seen)
    }

    /// Ends one open session of a token, or all of them; returns how many. The token lives on.
    ///
    /// # Errors
    /// As [`TokenService::revoke`].
    pub fn close_sessions(
        &self,
        who: &Principal,
        auth: &Authenticator,
        token: TokenId,
        number: Option<u64>,
    ) -> Result<usize> {
        let caller = who.authorized_caller()?;
        let record = self.find_record(token)?;
        caller.authorize_action(&self.store, &record, Role::RevokeTokens)?;
        let fits =
            |session: &OpenSession| session.token == token && number.is_none_or(|number| number == session.number);
        let sessions = auth.sessions().into_iter().filter(fits);
        let ended = sessions.filter(|session| auth.close_session(token, session.number)).count();
        if ended > 0 {
            let author = who.audit_context(self.clock.now());
            let event = AuditEvent::new(author.at, EventKind::SessionEnded)
                .with_user(&record.login)
                .with_token(token)
                .with_actor(author.actor);
            let event = if let Some(peer) = &author.peer { event.with_peer(peer) } else { event };
            self.store
                .record_events(&[event.with_count(u64::try_from(ended).unwrap_or(u64::MAX)).with_detail("by hand")])?;
        }
        Ok(ended)
    }
}
