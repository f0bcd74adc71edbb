//! Explaining: which grant, scope, limit or end of life decides what a token may do. Judged by the same
//! rules, over the same rows, as every request is.

use super::{Error, Principal, Result, TokenService};
use crate::domain::{
    AccessDenial, AccessExplanation, AccessQuery, AccessSource, DecidingRule, EffectiveGrant, Permission,
    RequiredPermission, ResolvedScope, Scope, TokenId, TokenLimits, TreeAccess, TreeOperation, TreePath, UploadRule,
};
use crate::store::{ChainToken, EffectiveAccess};

impl TokenService {
    /// Tells whether a token may do something now, and why. Judges names: what links lead to, what
    /// stands there, and locks are not looked at. A narrow token is told of scopes before grants, and of
    /// the grants no more than what is left of them: so it learns nothing of what is hidden from it.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], also for one that the caller may not look at.
    pub fn explain(&self, who: &Principal, token: TokenId, question: &AccessQuery) -> Result<AccessExplanation> {
        let record = self.find(who, token)?;
        let reached = self.store.effective_access(token)?.ok_or(Error::UnknownToken(token))?;
        let open = who.authorized_caller()?.may_see_grants();
        let (rule, by) = match self.inactive_rule(&reached)?.or_else(|| first_violated_limit(&reached.chain, question))
        {
            Some(rule) => (rule, Vec::new()),
            None => self.evaluate(&reached.access, question, open)?,
        };
        let provided = if rule.allows() { unchecked_limits(&reached.chain, question) } else { Vec::new() };
        Ok(AccessExplanation {
            allowed: rule.allows(),
            sentence: explanation_sentence(record.login.as_str(), token, question, &rule, &by, &provided),
            decided_by: rule,
            token,
            user: record.login,
            operation: question.operation,
            path: question.path.clone(),
            needs: question.operation.permission(),
            by,
            provided,
        })
    }

    /// Returns what the token died of.
    fn inactive_rule(&self, reached: &EffectiveAccess) -> Result<Option<DecidingRule>> {
        let now = self.clock.now();
        if let Some(link) = reached.chain.iter().find(|link| link.revoked) {
            return Ok(Some(DecidingRule::Revoked { token: link.token }));
        }
        let ends = |link: &ChainToken| (link.token, link.expiry.deadline(link.last_used_at.unwrap_or(link.created_at)));
        if let Some((token, at)) = reached.chain.iter().map(ends).find(|(_, at)| *at <= now) {
            return Ok(Some(DecidingRule::Expired { token, at }));
        }
        let owner = self.require_user(&reached.credentials.login)?;
        Ok(owner.disabled_at.map(|_| DecidingRule::Disabled))
    }

    /// Judges both ends of what is asked.
    fn evaluate(
        &self,
        access: &TreeAccess,
        question: &AccessQuery,
        open: bool,
    ) -> Result<(DecidingRule, Vec<AccessSource>)> {
        let AccessQuery { operation, path, target: to, .. } = question;
        let (rule, by) = self.evaluate_path(access, *operation, path, open)?;
        let Some(to) = to.as_ref().filter(|_| rule.allows()) else { return Ok((rule, by)) };
        let (target, _) = self.evaluate_path(access, TreeOperation::Create, to, open)?;
        if !target.allows() {
            return Ok((target, Vec::new()));
        }
        let (parent, readable) = (to.parent().unwrap_or_default(), |path| access.may(path, Permission::R));
        let rule = match operation {
            TreeOperation::Move if readable(to) && !readable(path) => DecidingRule::WouldReveal,
            TreeOperation::Link if !access.single_grant_allows(path, &parent, operation.permission()) => {
                DecidingRule::NotTogether
            }
            _ => rule,
        };
        let by = if rule.allows() { by } else { Vec::new() };
        Ok((rule, by))
    }

    fn evaluate_path(
        &self,
        access: &TreeAccess,
        operation: TreeOperation,
        path: &TreePath,
        open: bool,
    ) -> Result<(DecidingRule, Vec<AccessSource>)> {
        let at = operation.permission_path(path).unwrap_or_default();
        let roots = match operation.authorize(access, path) {
            Ok(roots) if roots.is_empty() => return Ok((DecidingRule::OnTheWay, Vec::new())),
            Ok(roots) => roots,
            Err(AccessDenial::NoGrant) => {
                let needed = operation.permission().non_empty().unwrap_or(Permission::R);
                let scoped = access.denying_token(&at, needed).filter(|_| !open);
                let rule = scoped
                    .map_or(DecidingRule::NoGrant { at: at.clone() }, |token| DecidingRule::OutOfScope { token, at });
                return Ok((rule, Vec::new()));
            }
            Err(AccessDenial::OutOfScope(token)) => return Ok((DecidingRule::OutOfScope { token, at }, Vec::new())),
            Err(AccessDenial::TreeRoot) => return Ok((DecidingRule::TopOfTree, Vec::new())),
            Err(AccessDenial::NodeReplaced) => return Ok((DecidingRule::Swapped { at }, Vec::new())),
        };
        let mut standing = Vec::new();
        for root in &roots {
            if self.sources_unchanged(root)? {
                standing.push(root);
            }
        }
        let allowed = standing.iter().fold(Permission::NONE, |sum, root| sum | root.permission);
        let enough = match operation.required_permission() {
            RequiredPermission::VisibleOnly => !standing.is_empty(),
            RequiredPermission::OnTarget(needed) | RequiredPermission::OnParent(needed) => allowed.allows(needed),
        };
        if !enough {
            let at = roots.first().map_or(at, |root| root.path.clone());
            return Ok((DecidingRule::Swapped { at }, Vec::new()));
        }
        let whole = |reach: &ResolvedScope| AccessSource { scope: reach.scope, path: reach.path.clone() };
        let left = |root: &EffectiveGrant, reach: &ResolvedScope| AccessSource {
            scope: Scope { node: reach.scope.node, permission: root.permission },
            path: root.path.clone(),
        };
        let sources = standing.iter().flat_map(|root| root.sources.iter().map(move |reach| (*root, reach)));
        let sources = sources.filter(|(root, reach)| open || reach.path == root.path);
        let mut by: Vec<AccessSource> = Vec::new();
        for source in sources.map(|(root, reach)| if open { whole(reach) } else { left(root, reach) }) {
            if !by.contains(&source) {
                by.push(source);
            }
        }
        Ok((DecidingRule::Granted, by))
    }

    /// Tells whether all that gives a permission is still what was named; taken on trust where no folder
    /// is served.
    fn sources_unchanged(&self, root: &EffectiveGrant) -> Result<bool> {
        let Some(tree) = &self.tree else { return Ok(true) };
        for reach in &root.sources {
            if tree.locate(reach.scope.node).map_err(Error::Tree)?.as_ref() != Some(&reach.path) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns the first limit of the chain that does not admit what is asked.
fn first_violated_limit(chain: &[ChainToken], question: &AccessQuery) -> Option<DecidingRule> {
    chain.iter().find_map(|ChainToken { token, limits, .. }| {
        let token = *token;
        if question.protocol.is_some_and(|protocol| !limits.allows_protocol(protocol)) {
            return Some(DecidingRule::Protocol { token });
        }
        if question.address.is_some_and(|address| !limits.allows_address(address)) {
            return Some(DecidingRule::Address { token });
        }
        if question.user_agent.as_ref().is_some_and(|agent| !limits.allows_user_agent(agent)) {
            return Some(DecidingRule::UserAgent { token });
        }
        if !is_upload(question.operation) {
            return None;
        }
        let rule = UploadRule::intersect([limits]);
        if let (Some(size), Some(most)) = (question.size, rule.max_file_size())
            && size > most
        {
            return Some(DecidingRule::FileSize { token, most });
        }
        if question.mime.as_ref().is_some_and(|mime| !rule.allows_mime_type(&[mime])) {
            return Some(DecidingRule::MediaType { token });
        }
        rule.first_denied_tag(&question.tags).map(|tag| DecidingRule::Tag { token, tag: tag.clone() })
    })
}

/// Returns the limits that were not asked about, in words.
fn unchecked_limits(chain: &[ChainToken], question: &AccessQuery) -> Vec<String> {
    let mut open = Vec::new();
    for ChainToken { token, limits, .. } in chain {
        let TokenLimits { protocols, ips, user_agents, mimes, max_file_size, .. } = limits;
        let mut add = |asked: bool, what: &str, values: Vec<String>| {
            if !asked && !values.is_empty() {
                open.push(format!("{what} {} (token {token})", values.join(" or ")));
            }
        };
        add(question.protocol.is_some(), "the protocol is", protocols.iter().map(ToString::to_string).collect());
        add(question.address.is_some(), "the address is in", ips.iter().map(ToString::to_string).collect());
        let agents = user_agents.iter().map(ToString::to_string).collect();
        add(question.user_agent.is_some(), "the program is", agents);
        if is_upload(question.operation) {
            let most = max_file_size.iter().map(|most| most.to_string()).collect();
            add(question.size.is_some(), "the file has at most", most);
            add(question.mime.is_some(), "its type is", mimes.iter().map(ToString::to_string).collect());
        }
    }
    open
}

/// Tells whether an operation makes a file, or changes what is in one.
fn is_upload(operation: TreeOperation) -> bool {
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
    question: &AccessQuery,
    rule: &DecidingRule,
    by: &[AccessSource],
    provided: &[String],
) -> String {
    let AccessQuery { operation, path, target: to, .. } = question;
    let may = if rule.allows() { "may" } else { "may not" };
    let to = to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
    let sources: Vec<_> = by.iter().map(|source| format!("{} on {}", source.scope.permission, source.path)).collect();
    let why = match (rule, &sources[..]) {
        (DecidingRule::Granted, [grant]) => format!("it is granted {grant}"),
        (DecidingRule::Granted, [grant, scopes @ ..]) => format!("it is granted {grant}, with {}", scopes.join(", ")),
        _ => rule.to_string(),
    };
    let provided = match provided {
        [] => String::new(),
        provided => format!(", provided that {}", provided.join(" and ")),
    };
    format!("{login} {may} {operation} {path}{to} with the token {token}: {why}{provided}")
}
