//! Creation of tokens: a request is validated as a whole before anything is stored.

use super::error::path_error;
use super::principal::{AuthorizedCaller, TokenBearer};
use super::proof::NewProof;
use super::{Error, Principal, Result, TokenRequest, TokenService};
use crate::auth::generate_token_id;
use crate::domain::{
    Login, NodeId, Permission, Role, Scope, ScopeTarget, TokenExpiry, TokenText, TreePath, UnixMillis,
};
use crate::store::{LocatedScope, NewTokenRow, StoreError, TokenRecord, User};
use crate::tree::Tree;

/// Maximum number of random ids that are tried for a new token.
const MAX_ID_ATTEMPTS: usize = 8;

/// A new token.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token, for the one time that it is shown; `None` for one that an SSH key proves.
    pub text: Option<TokenText>,
    /// The stored record.
    pub record: TokenRecord,
}

impl TokenService {
    /// Creates a token, on disk when this returns. Created with a token of its own user, it is a child of that token:
    /// its privileges never exceed those of the parent, and it is inactive with it. Created with roles for another
    /// user, it expires with the calling token at the latest. Its secret is hashed on the calling thread; a server with
    /// many callers uses [`TokenService::issue_queued`].
    ///
    /// # Errors
    /// [`Error`] for an unknown or disabled owner, one that the caller may not create tokens for, a role that the owner
    /// or the calling token lacks, a scope whose node does not exist or that is outside of what owner and calling token
    /// may access, limits that allow more than those of the calling token, and whatever the policy does not allow. No
    /// token is created then, and no secret was hashed for it.
    pub fn issue(&self, principal: &Principal, request: TokenRequest) -> Result<IssuedToken> {
        // All refusals come before argon2, so that no caller can make the server hash for nothing.
        self.authorize_issue(principal, &request)?;
        let proof = match &request.ssh_key {
            Some(key) => NewProof::SshKey(key.clone()),
            None => self.hash_new_secret()?,
        };
        self.store_issued(principal, request, &proof)
    }

    /// Creates a token as [`TokenService::issue`] does, for a server: blocking work runs off the async runtime, and the
    /// secret is hashed when it is the turn of the caller's user. Nothing is stored when the future is dropped before
    /// `begin` was called, which happens after the secret was hashed.
    ///
    /// # Errors
    /// As [`TokenService::issue`]; [`Error::Busy`] when the queue is full.
    pub async fn issue_queued(
        &self,
        principal: Principal,
        request: TokenRequest,
        begin: impl FnOnce() + Send,
    ) -> Result<IssuedToken> {
        let permit = principal.acquire_store_permit().await?;
        let (principal, request) = self
            .run_blocking(permit, move |service| {
                service.authorize_issue(&principal, &request)?;
                Ok((principal, request))
            })
            .await?;
        // Whose turn it is: the caller's, or the owner's where the administrator calls.
        let queue_user = principal.login().or(request.owner.as_ref()).ok_or(Error::OwnerMissing)?;
        // Without a permit for the store: argon2 has a queue of its own, in turn by user.
        let proof = match &request.ssh_key {
            Some(key) => NewProof::SshKey(key.clone()),
            None => self.hash_new_secret_queued(queue_user).await?,
        };
        // The last point at which a dropped future leaves nothing behind.
        begin();
        // Not bounded by the user's own queue: the hash that was paid for is not thrown away.
        let permit = principal.reacquire_store_permit().await?;
        self.run_blocking(permit, move |service| service.store_issued(&principal, request, &proof)).await
    }

    /// Checks that a token may be created at the moment, without any change.
    fn authorize_issue(&self, principal: &Principal, request: &TokenRequest) -> Result<()> {
        self.validate_request(&principal.authorized_caller()?, request, self.clock.now()).map(drop)
    }

    /// Validates the whole request, before the first effect, and returns the expiration of the token.
    fn validate_request(
        &self,
        caller: &AuthorizedCaller,
        request: &TokenRequest,
        now: UnixMillis,
    ) -> Result<TokenExpiry> {
        let owner = request.owner_or_caller(caller)?;
        let parent = caller.bearer_for(owner);
        // Before anything else is looked up: a caller who may not create tokens for the owner learns nothing about it.
        self.check_owner(caller, owner, request)?;
        // A child, and a token with roles, must not outlive the calling token. A token without roles for another user
        // may: handing out such tokens is the purpose of the role.
        let lifetime_bound = caller.bearer().filter(|_| parent.is_some() || !request.roles.is_empty());
        let expiry = request.resolve_expiry(
            &self.store.policy()?,
            now,
            lifetime_bound.map(|bearer| bearer.privileges.hard_limit),
        )?;
        if let Some(parent) = parent {
            // Against the limits of the whole chain: a token above the parent may allow less than the parent itself.
            let mut bounds = parent.privileges.limits.iter();
            bounds.try_for_each(|bound| bound.check_covers(&request.limits)).map_err(Error::ExceedsParent)?;
        }
        if let Some(scopes) = &request.scopes {
            self.check_scopes(owner, None, parent, scopes)?;
        }
        self.store.check_add_token(owner, parent.map(|parent| parent.token), now)?;
        Ok(expiry)
    }

    /// Stores a token with its proof. The request is validated again, since hashing took time.
    fn store_issued(&self, principal: &Principal, request: TokenRequest, proof: &NewProof) -> Result<IssuedToken> {
        let caller = principal.authorized_caller()?;
        let owner = request.owner_or_caller(&caller)?;
        let parent = caller.bearer_for(owner);
        let now = self.clock.now();
        let expiry = self.validate_request(&caller, &request, now)?;
        let scopes = request.scopes.as_ref().map(|scopes| self.resolve_scopes(owner, None, &caller, scopes));
        let scopes = scopes.transpose()?;
        let name = request.name.as_ref().map_or_else(|| format!("{owner}_api_token"), ToString::to_string);
        let mut attempts = 0;
        loop {
            // Only the id is drawn again where it is taken: the hash depends on the secret alone.
            let id = generate_token_id()?;
            let new = NewTokenRow {
                id,
                login: owner.clone(),
                parent: parent.map(|parent| parent.token),
                name: name.clone(),
                description: request.description.as_ref().map(ToString::to_string).unwrap_or_default(),
                proof: proof.to_stored(),
                created_at: now,
                expiry,
                scopes: scopes.clone(),
                limits: request.limits.clone(),
                roles: request.roles.clone(),
                foreign_roles: request.foreign_roles.clone(),
            };
            attempts += 1;
            match self.audited_store(principal).add_token(&new) {
                Err(StoreError::AlreadyExists(_)) if attempts < MAX_ID_ATTEMPTS => {}
                Err(other) => return Err(other.into()),
                Ok(()) => {
                    return Ok(IssuedToken {
                        record: self.with_visible_scopes(&caller, self.find_record(id)?)?,
                        text: proof.token_text(id),
                    });
                }
            }
        }
    }

    /// Checks that the caller may create tokens for the owner with the requested roles, and returns the owner.
    fn check_owner(&self, caller: &AuthorizedCaller, owner: &Login, request: &TokenRequest) -> Result<User> {
        let is_own = caller.bearer_for(owner).is_some();
        if !is_own {
            caller.require_unrestricted(Role::GenerateTokens)?;
        }
        let owner = self.require_user(owner)?;
        if !is_own {
            // All roles of the owner: with a token of a more privileged user, the caller would gain that user's rights.
            caller.require_roles(&owner.roles)?;
        }
        if owner.disabled_at.is_some() {
            return Err(Error::UserDisabled(owner.login));
        }
        // Refused and not ignored: a role counts only while the owner holds it.
        if let Some(role) = owner.roles.first_missing(&request.roles) {
            return Err(Error::RoleNotHeld { role, login: owner.login });
        }
        caller.require_roles(&request.roles)?;
        Ok(owner)
    }

    /// Resolves scopes to nodes. Paths get node ids once all scopes are known to be within the owner's grants, within
    /// the present scopes of the token, and within the access of the calling token.
    pub(super) fn resolve_scopes(
        &self,
        owner: &Login,
        within: Option<&[LocatedScope]>,
        caller: &AuthorizedCaller,
        targets: &[ScopeTarget],
    ) -> Result<Vec<Scope>> {
        // All scopes are checked before the first path gets a node id, so that a refused request leaves no row.
        self.check_scopes(owner, within, caller.bearer_for(owner), targets)?;
        let named_by = caller.bearer().map(|bearer| &bearer.login);
        let tree = self.tree.as_ref().ok_or(Error::NoServedRoot)?;
        let scope = |target: &ScopeTarget| match target {
            ScopeTarget::Node(scope) => Ok(*scope),
            ScopeTarget::Path(path, permission) => {
                let node = tree.assign_node_id_for_user(path, named_by).map_err(path_error(path))?;
                Ok(Scope { node, permission: *permission })
            }
        };
        targets.iter().map(scope).collect()
    }

    /// Checks that [`TokenService::resolve_scopes`] can resolve the scopes, without creating any node.
    fn check_scopes(
        &self,
        owner: &Login,
        within: Option<&[LocatedScope]>,
        parent: Option<&TokenBearer>,
        targets: &[ScopeTarget],
    ) -> Result<()> {
        let tree = self.tree.as_ref().ok_or(Error::NoServedRoot)?;
        if targets.is_empty() {
            return Err(Error::EmptyScopes);
        }
        // The owner's grants and, for a change, the present scopes: each of them has to cover every new scope.
        let mut bounds = vec![located_permissions(tree, &self.store.grants(owner)?)?];
        bounds.extend(within.map(|scopes| located_permissions(tree, scopes)).transpose()?);
        for target in targets {
            let (path, permission) = match target {
                ScopeTarget::Node(scope) => match locate_node(tree, scope.node) {
                    // A hidden node is answered as a missing one, so that node ids can't be probed.
                    Ok(path) if parent.is_some_and(|parent| !parent.privileges.access.may(&path, scope.permission)) => {
                        return Err(Error::UnknownNode(scope.node));
                    }
                    located => (located?, scope.permission),
                },
                ScopeTarget::Path(path, permission) => (path.clone(), *permission),
            };
            let mut exceeded = bounds.iter().find(|bound| !permission_at(bound, &path).allows(permission)).cloned();
            // The hint shows a caller no path that its own token may not access.
            if let (Some(parent), Some(exceeded)) = (parent, &mut exceeded) {
                exceeded.retain(|(path, permission)| parent.privileges.access.may(path, *permission));
            }
            if let Some(parent) = parent.filter(|parent| !parent.privileges.access.may(&path, permission)) {
                let grants = parent.privileges.access.effective_grants().iter();
                exceeded = Some(grants.map(|grant| (grant.path.clone(), grant.permission)).collect());
            }
            if let Some(exceeded) = exceeded {
                let reach = exceeded.iter().map(|(path, permission)| format!("{permission} {path}")).collect();
                return Err(Error::OutsideAccess { scope: scope_text(target), login: owner.clone(), reach });
            }
        }
        // After the permissions: the file system must not be asked about paths that are hidden from the caller.
        targets.iter().try_for_each(|target| match target {
            ScopeTarget::Node(_) => Ok(()),
            ScopeTarget::Path(path, _) => tree.can_assign_node_id(path).map_err(path_error(path)),
        })
    }
}

/// Returns the current paths and permissions of grants or scopes, without those that dangle.
fn located_permissions(tree: &Tree, scopes: &[LocatedScope]) -> Result<Vec<(TreePath, Permission)>> {
    let mut permissions = Vec::new();
    for LocatedScope { node, permission, .. } in scopes {
        // By the file system and not by the index: a grant on a directory that was replaced allows nothing.
        if let Some(path) = tree.locate(*node).map_err(Error::Tree)? {
            permissions.push((path, *permission));
        }
    }
    Ok(permissions)
}

/// Returns the union of the permissions at a path.
fn permission_at(permissions: &[(TreePath, Permission)], path: &TreePath) -> Permission {
    let covering = permissions.iter().filter(|(granted, _)| path.starts_with(granted));
    covering.fold(Permission::NONE, |sum, (_, permission)| sum | *permission)
}

fn locate_node(tree: &Tree, node: NodeId) -> Result<TreePath> {
    tree.locate(node).map_err(Error::Tree)?.ok_or(Error::UnknownNode(node))
}

/// Returns a scope in its text form.
fn scope_text(target: &ScopeTarget) -> String {
    match target {
        ScopeTarget::Node(scope) => scope.to_string(),
        ScopeTarget::Path(path, permission) => format!("path:{path}:{permission}"),
    }
}
