//! Explanation of access: the grant, scope, limit or token state that decides whether a token may do something, by the
//! same rules and from the same rows as for every request.

use super::{Error, Principal, Result, TokenService};
use crate::domain::{
    AccessDenial, AccessExplanation, AccessQuery, AccessSource, DecidingRule, EffectiveGrant, Permission,
    RequiredPermission, ResolvedScope, Scope, TokenId, TokenLimits, TreeAccess, TreeOperation, TreePath, UploadRule,
};
use crate::store::{ChainToken, EffectiveAccess};

impl TokenService {
    /// Tells whether a token may do something now, and why. Only paths are judged: targets of links, the entries at the
    /// paths and locks are ignored. A restricted caller is told of scopes before grants, and of grants only the part
    /// that scopes leave of them, so that it learns nothing about hidden entries.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], also for a token that the caller may not see.
    pub fn explain(&self, principal: &Principal, token: TokenId, query: &AccessQuery) -> Result<AccessExplanation> {
        let record = self.find(principal, token)?;
        let effective = self.store.effective_access(token)?.ok_or(Error::UnknownToken(token))?;
        let reveal_grants = principal.authorized_caller()?.may_see_grants();
        // In the order in which a request is judged: token, limits, access.
        let (rule, sources) =
            match self.inactive_rule(&effective)?.or_else(|| first_violated_limit(&effective.chain, query)) {
                Some(rule) => (rule, Vec::new()),
                None => self.evaluate(&effective.access, query, reveal_grants)?,
            };
        let unchecked = if rule.allows() { unchecked_limits(&effective.chain, query) } else { Vec::new() };
        Ok(AccessExplanation {
            allowed: rule.allows(),
            sentence: explanation_sentence(record.owner.as_str(), token, query, &rule, &sources, &unchecked),
            decided_by: rule,
            token,
            user: record.owner,
            operation: query.operation,
            path: query.path.clone(),
            needs: query.operation.permission(),
            allowed_by: sources,
            unchecked_limits: unchecked,
        })
    }

    /// Returns the rule by which the token is not accepted, if there is one.
    fn inactive_rule(&self, effective: &EffectiveAccess) -> Result<Option<DecidingRule>> {
        let now = self.clock.now();
        if let Some(link) = effective.chain.iter().find(|link| link.revoked) {
            return Ok(Some(DecidingRule::Revoked { token: link.token }));
        }
        let deadline = |link: &ChainToken| link.expiry.deadline(link.last_used_at.unwrap_or(link.created_at));
        // A recorded expiration is final, as it is for requests: a clock that was set back revives no token.
        if let Some(link) = effective.chain.iter().find(|link| link.expired || deadline(link) <= now) {
            return Ok(Some(DecidingRule::Expired { token: link.token, at: deadline(link) }));
        }
        let owner = self.require_user(&effective.credentials.login)?;
        Ok(owner.disabled_at.map(|_| DecidingRule::Disabled))
    }

    /// Decides an operation at its path and, where it has one, at its target.
    fn evaluate(
        &self,
        access: &TreeAccess,
        query: &AccessQuery,
        reveal_grants: bool,
    ) -> Result<(DecidingRule, Vec<AccessSource>)> {
        let AccessQuery { operation, path, target, .. } = query;
        let (rule, sources) = self.evaluate_path(access, *operation, path, reveal_grants)?;
        let Some(target) = target.as_ref().filter(|_| rule.allows()) else { return Ok((rule, sources)) };
        // Copies, moves and links need of their target what creating an entry there needs.
        let (target_rule, _) = self.evaluate_path(access, TreeOperation::Create, target, reveal_grants)?;
        if !target_rule.allows() {
            return Ok((target_rule, Vec::new()));
        }
        let (parent, readable) = (target.parent().unwrap_or_default(), |path| access.may(path, Permission::R));
        let rule = match operation {
            // A move must not make content readable that the caller can't read now.
            TreeOperation::Move if readable(target) && !readable(path) => DecidingRule::WouldReveal,
            // Both names share the content: one grant has to cover both, or revoking it would leave the other name.
            TreeOperation::Link if !access.single_grant_allows(path, &parent, operation.permission()) => {
                DecidingRule::NoSingleGrant
            }
            _ => rule,
        };
        let sources = if rule.allows() { sources } else { Vec::new() };
        Ok((rule, sources))
    }

    fn evaluate_path(
        &self,
        access: &TreeAccess,
        operation: TreeOperation,
        path: &TreePath,
        reveal_grants: bool,
    ) -> Result<(DecidingRule, Vec<AccessSource>)> {
        let at = operation.permission_path(path).unwrap_or_default();
        let grants = match operation.authorize(access, path) {
            Ok(grants) if grants.is_empty() => return Ok((DecidingRule::VisibleOnly, Vec::new())),
            Ok(grants) => grants,
            Err(AccessDenial::NoGrant) => {
                let needed = operation.permission().non_empty().unwrap_or(Permission::R);
                // A restricted caller is told of scopes first: whether a grant exists beyond them is hidden from it.
                let scoped = access.denying_token(&at, needed).filter(|_| !reveal_grants);
                let rule = scoped
                    .map_or(DecidingRule::NoGrant { at: at.clone() }, |token| DecidingRule::OutOfScope { token, at });
                return Ok((rule, Vec::new()));
            }
            Err(AccessDenial::OutOfScope(token)) => return Ok((DecidingRule::OutOfScope { token, at }, Vec::new())),
            Err(AccessDenial::TreeRoot) => return Ok((DecidingRule::TreeRoot, Vec::new())),
            Err(AccessDenial::NodeReplaced) => return Ok((DecidingRule::NodeReplaced { at }, Vec::new())),
        };
        // As for requests, a grant or scope gives nothing once its node was replaced on the file system.
        let mut unchanged = Vec::new();
        for grant in &grants {
            if self.sources_unchanged(grant)? {
                unchanged.push(grant);
            }
        }
        let allowed = unchanged.iter().fold(Permission::NONE, |sum, grant| sum | grant.permission);
        let is_allowed = match operation.required_permission() {
            RequiredPermission::VisibleOnly => !unchanged.is_empty(),
            RequiredPermission::OnTarget(needed) | RequiredPermission::OnParent(needed) => allowed.allows(needed),
        };
        if !is_allowed {
            let at = grants.first().map_or(at, |grant| grant.path.clone());
            return Ok((DecidingRule::NodeReplaced { at }, Vec::new()));
        }
        let full_source = |source: &ResolvedScope| AccessSource { scope: source.scope, path: source.path.clone() };
        let remaining_source = |grant: &EffectiveGrant, source: &ResolvedScope| AccessSource {
            scope: Scope { node: source.scope.node, permission: grant.permission },
            path: grant.path.clone(),
        };
        let sources = unchanged.iter().flat_map(|grant| grant.sources.iter().map(move |source| (*grant, source)));
        // A restricted caller sees of each source the part that the chain leaves, at the path where it begins.
        let sources = sources.filter(|(grant, source)| reveal_grants || source.path == grant.path);
        let mut distinct: Vec<AccessSource> = Vec::new();
        for source in sources
            .map(|(grant, source)| if reveal_grants { full_source(source) } else { remaining_source(grant, source) })
        {
            if !distinct.contains(&source) {
                distinct.push(source);
            }
        }
        Ok((DecidingRule::Granted, distinct))
    }

    /// Tells whether the nodes of all sources of a permission are still at their paths; true where no directory is
    /// served.
    fn sources_unchanged(&self, grant: &EffectiveGrant) -> Result<bool> {
        let Some(tree) = &self.tree else { return Ok(true) };
        for source in &grant.sources {
            if tree.locate(source.scope.node).map_err(Error::Tree)?.as_ref() != Some(&source.path) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns the first limit of the chain that refuses the query.
fn first_violated_limit(chain: &[ChainToken], query: &AccessQuery) -> Option<DecidingRule> {
    chain.iter().find_map(|ChainToken { token, limits, .. }| {
        let token = *token;
        if query.protocol.is_some_and(|protocol| !limits.allows_protocol(protocol)) {
            return Some(DecidingRule::Protocol { token });
        }
        if query.address.is_some_and(|address| !limits.allows_address(address)) {
            return Some(DecidingRule::Address { token });
        }
        if query.user_agent.as_ref().is_some_and(|agent| !limits.allows_user_agent(agent)) {
            return Some(DecidingRule::UserAgent { token });
        }
        if !writes_content(query.operation) {
            return None;
        }
        let rule = UploadRule::intersect([limits]);
        if let (Some(size), Some(max)) = (query.size, rule.max_file_size())
            && size > max
        {
            return Some(DecidingRule::FileSize { token, max });
        }
        if query.mime.as_ref().is_some_and(|mime| !rule.allows_mime_type(&[mime])) {
            return Some(DecidingRule::MediaType { token });
        }
        rule.first_denied_tag(&query.tags).map(|tag| DecidingRule::Tag { token, tag: tag.clone() })
    })
}

/// Returns the limits that the query left open, as conditions in words.
fn unchecked_limits(chain: &[ChainToken], query: &AccessQuery) -> Vec<String> {
    let mut unchecked = Vec::new();
    for ChainToken { token, limits, .. } in chain {
        let TokenLimits { protocols, ips, user_agents, mimes, max_file_size, quota, .. } = limits;
        let mut add = |asked: bool, what: &str, values: Vec<String>| {
            if !asked && !values.is_empty() {
                unchecked.push(format!("{what} {} (token {token})", values.join(" or ")));
            }
        };
        add(query.protocol.is_some(), "the protocol is", protocols.iter().map(ToString::to_string).collect());
        add(query.address.is_some(), "the address is in", ips.iter().map(ToString::to_string).collect());
        let agents = user_agents.iter().map(ToString::to_string).collect();
        add(query.user_agent.is_some(), "the program is", agents);
        if writes_content(query.operation) {
            let max = max_file_size.iter().map(|max| max.to_string()).collect();
            add(query.size.is_some(), "the file has at most", max);
            let quota = quota.iter().map(|max| max.to_string()).collect();
            add(false, "all files together have at most", quota);
            add(query.mime.is_some(), "its type is", mimes.iter().map(ToString::to_string).collect());
        }
    }
    unchecked
}

/// Tells whether an operation creates a file or changes its content.
fn writes_content(operation: TreeOperation) -> bool {
    // Every operation is listed, so that the compiler asks for a decision about a new one.
    match operation {
        TreeOperation::Write
        | TreeOperation::Create
        | TreeOperation::Copy
        | TreeOperation::Move
        | TreeOperation::Link => true,
        TreeOperation::Stat | TreeOperation::List | TreeOperation::Read | TreeOperation::Delete => false,
    }
}

fn explanation_sentence(
    login: &str,
    token: TokenId,
    query: &AccessQuery,
    rule: &DecidingRule,
    sources: &[AccessSource],
    unchecked: &[String],
) -> String {
    let AccessQuery { operation, path, target, .. } = query;
    let verb = if rule.allows() { "may" } else { "may not" };
    let target = target.as_ref().map(|target| format!(" to {target}")).unwrap_or_default();
    let sources: Vec<_> =
        sources.iter().map(|source| format!("{} on {}", source.scope.permission, source.path)).collect();
    let reason = match (rule, &sources[..]) {
        (DecidingRule::Granted, [grant]) => format!("it is granted {grant}"),
        (DecidingRule::Granted, [grant, scopes @ ..]) => format!("it is granted {grant}, with {}", scopes.join(", ")),
        _ => rule.to_string(),
    };
    let unchecked = match unchecked {
        [] => String::new(),
        unchecked => format!(", provided that {}", unchecked.join(" and ")),
    };
    format!("{login} {verb} {operation} {path}{target} with the token {token}: {reason}{unchecked}")
}
