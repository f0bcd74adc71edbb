//! The privileges of a token over its whole chain, and their comparison with those of another token.

use std::sync::Arc;

use super::{Role, Roles, TokenLimits, TreeAccess, TreePath, UnixMillis};

/// The privileges of a token: the bounds of its own row and of the tokens above it.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// The access to the tree.
    pub access: Arc<TreeAccess>,
    /// The limits of each token of the chain, its own first.
    pub limits: Vec<TokenLimits>,
    /// The roles.
    pub roles: Roles,
    /// The hard limit of its lifetime, which no use extends.
    pub hard_limit: UnixMillis,
}

/// The first privilege that exceeds the allowed ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExceedsPrivileges {
    /// Access to a path.
    #[error("it has access to {0}")]
    Access(TreePath),
    /// A limit that is missing or allows more.
    #[error("its limit on {0} allows more")]
    Limit(&'static str),
    /// A role.
    #[error("it has the role {0}")]
    Role(Role),
    /// A later expiration.
    #[error("it expires later")]
    Lifetime,
}

impl Privileges {
    /// Tells whether these are the privileges of a token without scopes, limits or parent.
    pub fn is_unrestricted(&self) -> bool {
        // A second list would be that of a parent.
        self.access.is_unscoped() && matches!(&self.limits[..], [own] if *own == TokenLimits::default())
    }

    /// Checks that these privileges cover those of another token in access, limits and roles. Lifetimes are not
    /// compared.
    ///
    /// # Errors
    /// [`ExceedsPrivileges`] with the first privilege of the other that is not covered.
    pub fn check_covers(&self, other: &Privileges) -> Result<(), ExceedsPrivileges> {
        if let Some(root) =
            other.access.effective_grants().iter().find(|root| !self.access.may(&root.path, root.permission))
        {
            return Err(ExceedsPrivileges::Access(root.path.clone()));
        }
        for kind in LimitKind::ALL {
            let bounds = self.limits.iter().filter(|bound| kind.is_set(bound));
            // One token of the other chain within the bound is enough, as all tokens of a chain have to allow a
            // request.
            let within =
                |bound: &TokenLimits| other.limits.iter().any(|own| kind.is_set(own) && kind.covers(bound, own));
            if !bounds.into_iter().all(within) {
                return Err(ExceedsPrivileges::Limit(kind.name()));
            }
        }
        self.roles.first_missing(&other.roles).map_or(Ok(()), |role| Err(ExceedsPrivileges::Role(role)))
    }
}

impl TokenLimits {
    /// Checks that each limit that `other` sets allows no more than the one set here; limits that it does not set are
    /// ignored.
    ///
    /// # Errors
    /// [`ExceedsPrivileges`] with the first limit that allows more.
    pub fn check_covers(&self, other: &TokenLimits) -> Result<(), ExceedsPrivileges> {
        let both_set = |kind: &LimitKind| kind.is_set(self) && kind.is_set(other);
        match LimitKind::ALL.into_iter().filter(both_set).find(|kind| !kind.covers(self, other)) {
            Some(kind) => Err(ExceedsPrivileges::Limit(kind.name())),
            None => Ok(()),
        }
    }

    /// Returns these limits, overridden by those that `other` sets.
    #[must_use]
    pub fn overridden_by(self, other: TokenLimits) -> TokenLimits {
        fn list<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
            if other.is_empty() { own } else { other }
        }
        TokenLimits {
            protocols: list(self.protocols, other.protocols),
            ips: list(self.ips, other.ips),
            user_agents: list(self.user_agents, other.user_agents),
            mimes: list(self.mimes, other.mimes),
            tags: list(self.tags, other.tags),
            max_file_size: other.max_file_size.or(self.max_file_size),
            quota: other.quota.or(self.quota),
        }
    }
}

/// One of the limits on a token.
#[derive(Clone, Copy)]
enum LimitKind {
    Protocols,
    Addresses,
    UserAgents,
    MimeTypes,
    Tags,
    FileSize,
    Quota,
}

impl LimitKind {
    const ALL: [LimitKind; 7] = [
        LimitKind::Protocols,
        LimitKind::Addresses,
        LimitKind::UserAgents,
        LimitKind::MimeTypes,
        LimitKind::Tags,
        LimitKind::FileSize,
        LimitKind::Quota,
    ];

    fn name(self) -> &'static str {
        match self {
            LimitKind::Protocols => "protocols",
            LimitKind::Addresses => "addresses",
            LimitKind::UserAgents => "user agents",
            LimitKind::MimeTypes => "media types",
            LimitKind::Tags => "tags",
            LimitKind::FileSize => "the file size",
            LimitKind::Quota => "the quota",
        }
    }

    fn is_set(self, limits: &TokenLimits) -> bool {
        match self {
            LimitKind::Protocols => !limits.protocols.is_empty(),
            LimitKind::Addresses => !limits.ips.is_empty(),
            LimitKind::UserAgents => !limits.user_agents.is_empty(),
            LimitKind::MimeTypes => !limits.mimes.is_empty(),
            LimitKind::Tags => !limits.tags.is_empty(),
            LimitKind::FileSize => limits.max_file_size.is_some(),
            LimitKind::Quota => limits.quota.is_some(),
        }
    }

    /// Tells whether `outer` allows all that `inner` allows; both set this limit.
    fn covers(self, outer: &TokenLimits, inner: &TokenLimits) -> bool {
        fn each<T>(outer: &[T], inner: &[T], holds: impl Fn(&T, &T) -> bool) -> bool {
            inner.iter().all(|one| outer.iter().any(|other| holds(other, one)))
        }
        match self {
            LimitKind::Protocols => each(&outer.protocols, &inner.protocols, PartialEq::eq),
            LimitKind::Addresses => each(&outer.ips, &inner.ips, |net, one| net.contains(one)),
            // The inner pattern is matched as a text: a `*` in it is matched only by a `*` of the outer pattern, which
            // then matches whatever the inner one stands for.
            LimitKind::UserAgents => each(&outer.user_agents, &inner.user_agents, |p, one| p.matches(&one.to_string())),
            LimitKind::MimeTypes => each(&outer.mimes, &inner.mimes, |pattern, one| pattern.covers(one)),
            LimitKind::Tags => each(&outer.tags, &inner.tags, PartialEq::eq),
            LimitKind::FileSize => inner.max_file_size <= outer.max_file_size,
            LimitKind::Quota => inner.quota <= outer.quota,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ByteSize, Protocol};

    fn limits(change: impl FnOnce(&mut TokenLimits)) -> TokenLimits {
        let mut limits = TokenLimits::default();
        change(&mut limits);
        limits
    }

    fn privileges_with_limits(limits: &[&TokenLimits]) -> Privileges {
        let limits = limits.iter().copied().cloned().collect();
        Privileges { access: Arc::default(), limits, roles: Roles::none(), hard_limit: UnixMillis::MAX }
    }

    /// For each kind of limit: one, a narrower one, and one that is not narrower.
    fn limit_cases() -> Vec<[TokenLimits; 3]> {
        let agent = |text: &str| limits(|l| l.user_agents = vec![text.parse().expect("user agent")]);
        let net = |text: &str| limits(|l| l.ips = vec![text.parse().expect("net")]);
        let protocols = |protocols: &[Protocol]| limits(|l| l.protocols = protocols.to_vec());
        let mimes = |text: &str| limits(|l| l.mimes = vec![text.parse().expect("media type")]);
        let tags = |text: &[&str]| limits(|l| l.tags = text.iter().map(|tag| tag.parse().expect("tag")).collect());
        let size = |bytes| limits(|l| l.max_file_size = Some(ByteSize::from_bytes(bytes)));
        let quota = |bytes| limits(|l| l.quota = Some(ByteSize::from_bytes(bytes)));
        vec![
            [protocols(&[Protocol::Sftp, Protocol::Api]), protocols(&[Protocol::Api]), protocols(&[Protocol::Webdav])],
            [net("192.0.2.0/24"), net("192.0.2.7/32"), net("192.0.0.0/16")],
            [net("0.0.0.0/0"), net("192.0.2.0/24"), net("::/0")],
            [agent("rclone/*"), agent("rclone/v1*"), agent("rclon*")],
            [agent("*dav*"), agent("davfs2/1.7"), agent("*da*v*")],
            [mimes("image/*"), mimes("image/png"), mimes("*/*")],
            [tags(&["a", "b"]), tags(&["b"]), tags(&["b", "c"])],
            [size(10), size(10), size(11)],
            [quota(10), quota(9), quota(11)],
        ]
    }

    #[test]
    fn limit_covers_only_narrower_limits() {
        for [outer, inner, wider] in limit_cases() {
            assert_eq!(outer.check_covers(&inner), Ok(()), "{outer:?} {inner:?}");
            assert!(outer.check_covers(&wider).is_err(), "{outer:?} {wider:?}");
            assert_eq!(outer.check_covers(&TokenLimits::default()), Ok(()), "what is not set does not count");
            assert_eq!(TokenLimits::default().check_covers(&wider), Ok(()));
        }
    }

    #[test]
    fn token_without_limit_exceeds_limited_token() {
        for [outer, inner, wider] in limit_cases() {
            let bounded = privileges_with_limits(&[&outer]);
            assert_eq!(bounded.check_covers(&privileges_with_limits(&[&inner])), Ok(()));
            assert!(bounded.check_covers(&privileges_with_limits(&[&TokenLimits::default()])).is_err(), "{outer:?}");
            assert!(bounded.check_covers(&privileges_with_limits(&[&wider])).is_err(), "{outer:?} {wider:?}");
            assert_eq!(
                bounded.check_covers(&privileges_with_limits(&[&wider, &inner])),
                Ok(()),
                "the chain above it narrows it"
            );
        }
    }

    #[test]
    fn set_limits_override_previous_ones() {
        for [outer, inner, _] in limit_cases() {
            assert_eq!(outer.clone().overridden_by(inner.clone()), inner);
            assert_eq!(outer.clone().overridden_by(TokenLimits::default()), outer);
        }
    }
}
