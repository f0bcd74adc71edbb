//! Changes of tokens: narrowing, rotation and revocation.

use super::principal::{AuthorizedCaller, TokenBearer};
use super::proof::NewProof;
use super::{Error, NarrowRequest, Principal, Result, TokenService};
use crate::domain::{ExceedsPrivileges, Lifetime, Login, Role, SshPublicKey, TokenId, TokenText};
use crate::store::{NarrowedToken, StoreError, TokenRecord, TokenState};

const MAX_GRACE_SECONDS: u64 = 86_400;

/// Maximum number of attempts of a change when others are made at the same time.
const MAX_UPDATE_ATTEMPTS: usize = 8;

/// What a rotation is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Time for which the former secret or key is still accepted, 24 h at most; `None`: not any more.
    pub grace: Option<Lifetime>,
    /// SSH public key that proves the token from now on, in place of a new secret. One that a key proves needs another one.
    pub ssh_key: Option<SshPublicKey>,
}

/// A token with a new secret or key.
#[derive(Debug)]
pub struct RotatedToken {
    /// The token, for the one time that it is shown; `None` for one that an SSH key proves.
    pub text: Option<TokenText>,
    /// The stored record.
    pub record: TokenRecord,
}

impl TokenService {
    /// Changes a token: its name and description, and narrows its privileges. `expected` is the version that the caller
    /// has seen of it.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], [`Error::Forbidden`] for a token that the caller may not change,
    /// [`Error::VersionConflict`] when it has another version, [`Error::TokenInactive`], and for extended privileges
    /// [`Error::WidensToken`], [`Error::OutsideAccess`] or [`Error::ExtendsLifetime`]; nothing is changed then.
    pub fn narrow(
        &self,
        principal: &Principal,
        id: TokenId,
        change: &NarrowRequest,
        expected: Option<u64>,
    ) -> Result<TokenRecord> {
        let caller = principal.authorized_caller()?;
        // Without an expected version, a change in between is no conflict: the new record is narrowed in its turn.
        for _ in 0..MAX_UPDATE_ATTEMPTS {
            let record = self.find_record(id)?;
            caller.authorize_action(&self.store, &record, Role::GenerateTokens)?;
            if expected.is_some_and(|version| version != record.version) {
                break;
            }
            let narrowed = self.apply_narrowing(&caller, &record, change)?;
            if self.audited_store(principal).narrow_token(id, record.version, &narrowed)? {
                return self.with_visible_scopes(&caller, self.find_record(id)?);
            }
        }
        Err(Error::VersionConflict(id))
    }

    /// Returns the fields of a token after a change, and refuses extended privileges; entries that are hidden from the
    /// caller are answered as missing ones.
    fn apply_narrowing(
        &self,
        caller: &AuthorizedCaller,
        record: &TokenRecord,
        change: &NarrowRequest,
    ) -> Result<NarrowedToken> {
        let NarrowRequest { name, description, scopes, limits, roles, expires_at: expires } = change.clone();
        if record.state != TokenState::Live {
            return Err(Error::TokenInactive(record.id, record.state));
        }
        // Only limits that both set are compared: an additional one narrows, and an empty one keeps the present one.
        record.limits.check_covers(&limits).map_err(Error::WidensToken)?;
        if let Some(role) = roles.as_ref().and_then(|roles| record.roles.first_missing(roles)) {
            return Err(Error::WidensToken(ExceedsPrivileges::Role(role)));
        }
        if expires.is_some_and(|at| at > record.expiry().hard_limit()) {
            return Err(Error::ExtendsLifetime(record.id, record.expiry().hard_limit()));
        }
        let scopes = scopes.map(|scopes| self.resolve_scopes(&record.owner, record.scopes.as_deref(), caller, &scopes));
        Ok(NarrowedToken {
            name: name.map_or_else(|| record.name.clone(), |name| name.to_string()),
            description: description.map_or_else(|| record.description.clone(), |text| text.to_string()),
            scopes: scopes.transpose()?,
            limits: record.limits.clone().overridden_by(limits),
            roles: roles.unwrap_or_else(|| record.roles.clone()),
            expiry: expires.map_or(record.expiry(), |at| record.expiry().capped_at(at)),
        })
    }

    /// Gives a token a new secret or key. The expiration of the token does not change.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], [`Error::Forbidden`] for a token that the caller may not rotate,
    /// [`Error::GraceTooLong`] for more than a day, [`Error::SshKeyMissing`] and [`Error::SshKeyInUse`],
    /// [`Error::TokenInactive`] for a revoked or expired token,
    /// [`Error::ExceedsCaller`] for a token of the caller's own user with privileges that the calling one lacks, and
    /// for any token with roles that expires later. No secret was hashed then.
    pub fn rotate(&self, principal: &Principal, id: TokenId, rotation: &Rotation) -> Result<RotatedToken> {
        self.authorize_rotation(&principal.authorized_caller()?, id, rotation)?;
        let proof = match &rotation.ssh_key {
            Some(key) => NewProof::SshKey(key.clone()),
            None => self.hash_new_secret()?,
        };
        self.replace_proof(principal, id, rotation, &proof)
    }

    /// Rotates a token as [`TokenService::rotate`] does, for a server; compare [`TokenService::issue_queued`].
    ///
    /// # Errors
    /// As [`TokenService::rotate`]; [`Error::Busy`] when the queue is full.
    pub async fn rotate_queued(
        &self,
        principal: Principal,
        id: TokenId,
        rotation: Rotation,
        begin: impl FnOnce() + Send,
    ) -> Result<RotatedToken> {
        let permit = principal.acquire_store_permit().await?;
        let (principal, record, rotation) = self
            .run_blocking(permit, move |service| {
                let record = service.authorize_rotation(&principal.authorized_caller()?, id, &rotation)?;
                Ok((principal, record, rotation))
            })
            .await?;
        let proof = match &rotation.ssh_key {
            Some(key) => NewProof::SshKey(key.clone()),
            None => self.hash_new_secret_queued(principal.login().unwrap_or(&record.owner)).await?,
        };
        begin();
        let permit = principal.reacquire_store_permit().await?;
        self.run_blocking(permit, move |service| service.replace_proof(&principal, id, &rotation, &proof)).await
    }

    /// Checks that a token may be rotated at the moment, and returns it.
    fn authorize_rotation(&self, caller: &AuthorizedCaller, id: TokenId, rotation: &Rotation) -> Result<TokenRecord> {
        let record = self.find_record(id)?;
        // The caller first: only one who may rotate the token learns of its state.
        caller.authorize_action(&self.store, &record, Role::GenerateTokens)?;
        if let Some(asked) = rotation.grace.filter(|grace| grace.as_secs() > MAX_GRACE_SECONDS) {
            return Err(Error::GraceTooLong(asked));
        }
        if record.state != TokenState::Live {
            return Err(Error::TokenInactive(id, record.state));
        }
        if record.ssh_key.is_some() && rotation.ssh_key.is_none() {
            return Err(Error::SshKeyMissing(id));
        }
        if let Some(bearer) = caller.bearer() {
            self.check_rotation_privileges(bearer, &record)?;
        }
        Ok(record)
    }

    /// Stores the new proof of a token. The rotation is authorized again, since hashing took time.
    fn replace_proof(
        &self,
        principal: &Principal,
        id: TokenId,
        rotation: &Rotation,
        proof: &NewProof,
    ) -> Result<RotatedToken> {
        let caller = principal.authorized_caller()?;
        let record = self.authorize_rotation(&caller, id, rotation)?;
        let now = self.clock.now();
        // A grace ends with the token: it never extends its lifetime.
        let grace_until =
            rotation.grace.map(|grace| now.saturating_add(grace.as_duration()).min(record.expiry().hard_limit()));
        match self.audited_store(principal).rotate_token(id, &proof.to_stored(), grace_until, now) {
            // The row was read above, so it was revoked or deleted meanwhile.
            Err(StoreError::NotFound(_)) => Err(Error::TokenInactive(id, TokenState::Revoked)),
            Err(other) => Err(other.into()),
            Ok(()) => Ok(RotatedToken {
                text: proof.token_text(id),
                record: self.with_visible_scopes(&caller, self.find_record(id)?)?,
            }),
        }
    }

    /// Checks that the privileges of the bearer cover those of a token of the same user that it rotates, and that roles
    /// are not gained for longer than the bearer has them. Roles of other users' tokens were checked by
    /// [`AuthorizedCaller::authorize_action`].
    fn check_rotation_privileges(&self, bearer: &TokenBearer, record: &TokenRecord) -> Result<()> {
        let target = self.store.effective_access(record.id)?.ok_or(Error::UnknownToken(record.id))?.into_privileges();
        let is_own = bearer.login == record.owner;
        if is_own {
            bearer.privileges.check_covers(&target).map_err(Error::ExceedsCaller)?;
        }
        // Roles must not be gained for longer than the bearer has them, and a restricted token must not gain a longer
        // life by rotating another token of its user.
        let bounds_lifetime = !target.roles.is_empty() || (is_own && !bearer.privileges.is_unrestricted());
        if bounds_lifetime && target.hard_limit > bearer.privileges.hard_limit {
            return Err(Error::ExceedsCaller(ExceedsPrivileges::Lifetime));
        }
        Ok(())
    }

    /// Revokes tokens, on disk when this returns; those already revoked stay as they are.
    ///
    /// # Errors
    /// [`Error::UnknownToken`] when one of them does not exist, [`Error::Forbidden`] when the caller may not revoke one
    /// of them; none is revoked then.
    pub fn revoke(&self, principal: &Principal, ids: &[TokenId]) -> Result<()> {
        let caller = principal.authorized_caller()?;
        // All are authorized before the first is revoked.
        for id in ids {
            caller.authorize_action(&self.store, &self.find_record(*id)?, Role::RevokeTokens)?;
        }
        Ok(self.audited_store(principal).revoke_tokens(ids, self.clock.now())?)
    }

    /// Revokes a token and returns its record. A caller who may revoke it may see the record, also without the role to
    /// look it up.
    ///
    /// # Errors
    /// As [`TokenService::revoke`].
    pub fn revoke_one(&self, principal: &Principal, id: TokenId) -> Result<TokenRecord> {
        let caller = principal.authorized_caller()?;
        self.revoke(principal, &[id])?;
        self.with_visible_scopes(&caller, self.find_record(id)?)
    }

    /// Revokes all tokens of a user and returns how many had not been revoked before.
    ///
    /// # Errors
    /// [`Error::UnknownUser`]; [`Error::Forbidden`] without an unrestricted token of that user or the role to revoke.
    pub fn revoke_all(&self, principal: &Principal, owner: &Login) -> Result<usize> {
        let caller = principal.authorized_caller()?;
        // The role before the look-up, so that a caller without it can't probe logins.
        if !caller.is_unrestricted_self(owner) {
            caller.require_role(Role::RevokeTokens)?;
            caller.require_roles(&self.require_user(owner)?.roles)?;
        }
        self.require_user(owner)?;
        Ok(self.audited_store(principal).revoke_user_tokens(owner, self.clock.now())?)
    }
}
