//! Making a token: what is asked for, judged whole before anything is kept.

use super::error::at;
use super::{Error, Label, Result, Tokens};
use crate::auth::{Sealer, mint};
use crate::domain::{
    Expiry, Lifetime, Limits, Login, NodeId, Permission, Policy, Scope, ScopeTarget, Time, TokenText, TreePath,
};
use crate::store::{NewToken, StoreError, TokenRecord};
use crate::tree::Tree;

/// How often a token is drawn again when its id is taken.
const DRAWS: usize = 8;

/// How long a token is asked to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Asked {
    /// As the policy has it.
    #[default]
    Default,
    /// This long, whatever happens.
    For(Lifetime),
    /// Until it is revoked.
    Never,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The owner.
    pub owner: Login,
    /// A name for people; `OWNER_api_token` when none is given.
    pub name: Option<Label>,
    /// A description for people.
    pub description: Label,
    /// The hard limit.
    pub lifetime: Asked,
    /// The sliding window.
    pub window: Option<Lifetime>,
    /// What to narrow it to; nothing: all that the owner may reach.
    pub scopes: Vec<ScopeTarget>,
    /// What to limit it to.
    pub limits: Limits,
}

impl TokenRequest {
    /// Asks for a token of an owner with the policy's lifetime and nothing narrowed.
    pub fn new(owner: Login) -> Self {
        Self {
            owner,
            name: None,
            description: Label::default(),
            lifetime: Asked::Default,
            window: None,
            scopes: Vec::new(),
            limits: Limits::default(),
        }
    }

    fn expiry(&self, policy: &Policy, now: Time) -> Result<Expiry> {
        match (self.lifetime, self.window) {
            (Asked::Default, window) => Ok(policy.expiry(now, None, window)?),
            (Asked::For(hard), window) => Ok(policy.expiry(now, Some(hard), window)?),
            (Asked::Never, None) => Ok(policy.never()?),
            (Asked::Never, Some(_)) => Err(Error::NeverSlides),
        }
    }
}

/// A token that was made.
#[derive(Debug)]
pub struct Issued {
    /// The token, for the one time that it is shown.
    pub text: TokenText,
    /// What is kept of it.
    pub record: TokenRecord,
}

impl Tokens {
    /// Makes a token, on disk when this returns. Only scopes need the tree.
    ///
    /// # Errors
    /// [`Error`] for an unknown or disabled owner, a scope whose node is not there or that lies outside
    /// what the owner may reach, and whatever the policy does not give; no token is made then.
    pub fn issue<'a>(&self, tree: impl Into<Option<&'a Tree>>, request: TokenRequest) -> Result<Issued> {
        let now = self.clock.now();
        let owner = self.user(&request.owner)?;
        if owner.disabled_at.is_some() {
            return Err(Error::Disabled(owner.login));
        }
        let expiry = request.expiry(&self.store.policy()?, now)?;
        let scopes = match (&request.scopes[..], tree.into()) {
            ([], _) => None,
            (scopes, Some(tree)) => Some(self.resolve(tree, &request.owner, scopes)?),
            (_, None) => return Err(Error::NoTree),
        };
        let sealer = Sealer::open(&self.store)?;
        let name = request.name.map_or_else(|| format!("{}_api_token", request.owner), |name| name.to_string());
        let mut draws = 0;
        loop {
            let text = mint()?;
            let new = NewToken {
                id: text.id(),
                login: request.owner.clone(),
                parent: None,
                name: name.clone(),
                description: request.description.to_string(),
                sealed: sealer.seal(text.secret())?,
                created_at: now,
                expiry,
                scopes: scopes.clone(),
                limits: request.limits.clone(),
            };
            draws += 1;
            match self.store.add_token(&new) {
                Err(StoreError::Exists(_)) if draws < DRAWS => {}
                Err(other) => return Err(other.into()),
                Ok(()) => return Ok(Issued { record: self.find(text.id())?, text }),
            }
        }
    }

    /// Turns scopes as they are typed into nodes; names those given by path once all are known to lie
    /// within the owner's grants.
    fn resolve(&self, tree: &Tree, owner: &Login, targets: &[ScopeTarget]) -> Result<Vec<Scope>> {
        let grants = self.reach(tree, owner)?;
        for target in targets {
            let (path, permission) = match target {
                ScopeTarget::Node(scope) => (located(tree, scope.node)?, scope.permission),
                ScopeTarget::Path(path, permission) => (path.clone(), *permission),
            };
            let above = grants.iter().filter(|(place, _)| path.is_within(place));
            let granted = above.fold(Permission::NONE, |sum, (_, permission)| sum | *permission);
            if !granted.allows(permission) {
                let reach = grants.iter().map(|(place, permission)| format!("{permission} {place}")).collect();
                return Err(Error::OutsideReach { scope: typed(target), login: owner.clone(), reach });
            }
        }
        let scope = |target: &ScopeTarget| match target {
            ScopeTarget::Node(scope) => Ok(*scope),
            ScopeTarget::Path(path, permission) => {
                Ok(Scope { node: tree.mint(path).map_err(at(path))?, permission: *permission })
            }
        };
        targets.iter().map(scope).collect()
    }

    /// Returns where the owner's grants are now; leaves out those that dangle.
    fn reach(&self, tree: &Tree, owner: &Login) -> Result<Vec<(TreePath, Permission)>> {
        let mut reach = Vec::new();
        for grant in self.store.grants(owner)? {
            if let Some(path) = tree.locate(grant.scope.node).map_err(Error::Tree)? {
                reach.push((path, grant.scope.permission));
            }
        }
        Ok(reach)
    }
}

fn located(tree: &Tree, node: NodeId) -> Result<TreePath> {
    tree.locate(node).map_err(Error::Tree)?.ok_or(Error::UnknownNode(node))
}

/// Writes a scope as it was typed.
fn typed(target: &ScopeTarget) -> String {
    match target {
        ScopeTarget::Node(scope) => scope.to_string(),
        ScopeTarget::Path(path, permission) => format!("path:{path}:{permission}"),
    }
}
