//! Bans as administrators see and change them.

use super::{Error, Principal, Result, TokenService};
use crate::domain::{Ban, BanOrigin, BannedNetwork, Lifetime, Role};

/// A ban to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanRequest {
    /// The network to ban.
    pub network: BannedNetwork,
    /// How long it is banned; `None` until the ban is removed.
    pub duration: Option<Lifetime>,
    /// Reason, for administrators; may be empty.
    pub reason: String,
}

impl TokenService {
    /// Returns the bans in force, the latest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without the role to manage the policy.
    pub fn bans(&self, principal: &Principal) -> Result<Vec<Ban>> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        Ok(self.store.active_bans(self.clock.now())?)
    }

    /// Bans a network, in place of a ban that it has. Servers refuse it, and end its sessions, within a second.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::InvalidBan`] for a reason that is too long or no single line, and for a network that
    /// the caller itself connects from.
    pub fn add_ban(&self, principal: &Principal, request: &BanRequest) -> Result<Ban> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        let BanRequest { network, duration, reason } = request;
        if reason.len() > Ban::REASON_MAX_BYTES || reason.contains(char::is_control) {
            let limit = Ban::REASON_MAX_BYTES;
            return Err(Error::InvalidBan(format!("the reason of a ban is one line of at most {limit} bytes")));
        }
        let now = self.clock.now();
        let own_address = principal.audit_context(now).peer.map(|peer| peer.address);
        if let Some(address) = own_address.filter(|address| network.contains(*address)) {
            return Err(Error::InvalidBan(format!(
                "{network} contains {address}, from which you are connected: the ban would shut you out"
            )));
        }
        let until = duration.map(|duration| now.saturating_add(duration.as_duration()));
        let ban =
            Ban { network: *network, since: now, until, origin: BanOrigin::Manual, repeats: 0, reason: reason.clone() };
        self.audited_store(principal).add_ban(&ban)?;
        Ok(ban)
    }

    /// Removes a ban.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::UnknownBan`] where exactly this network is not banned.
    pub fn remove_ban(&self, principal: &Principal, network: BannedNetwork) -> Result<()> {
        principal.authorized_caller()?.require_role(Role::ManagePolicy)?;
        match self.audited_store(principal).remove_ban(network, self.clock.now())? {
            true => Ok(()),
            false => Err(Error::UnknownBan(network)),
        }
    }
}
