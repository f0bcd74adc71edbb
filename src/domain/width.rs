//! How wide a token is over its whole chain, and whether one is at least as wide as another.

use std::sync::Arc;

use super::{Access, Limits, Role, Roles, Time, TreePath};

/// All that bounds what a token may do: its own and what the tokens above it add.
#[derive(Clone, Debug)]
pub struct Width {
    /// What it may reach.
    pub access: Arc<Access>,
    /// What each token of the chain is limited to, its own first.
    pub limits: Vec<Limits>,
    /// What it may do through the REST API beyond its own tokens.
    pub roles: Roles,
    /// The instant that no use moves its life past.
    pub cap: Time,
}

/// In what something is wider than it may be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wider {
    /// It reaches more.
    #[error("it reaches {0}")]
    Reach(TreePath),
    /// A limit is missing or allows more.
    #[error("its limit on {0} allows more")]
    Limit(&'static str),
    /// It has another role.
    #[error("it has the role {0}")]
    Role(Role),
    /// It lives longer.
    #[error("it lives longer")]
    Life,
}

impl Width {
    /// Tells whether this is the width of a token without scopes, limits or parent.
    pub fn is_whole(&self) -> bool {
        self.access.is_unscoped() && matches!(&self.limits[..], [own] if *own == Limits::default())
    }

    /// Makes sure that this is at least as wide as another in reach, limits and roles.
    ///
    /// # Errors
    /// [`Wider`]: the first in which the other is wider.
    pub fn holds(&self, other: &Width) -> Result<(), Wider> {
        if let Some(root) = other.access.roots().iter().find(|root| !self.access.may(&root.path, root.permission)) {
            return Err(Wider::Reach(root.path.clone()));
        }
        for kind in Kind::ALL {
            let bounds = self.limits.iter().filter(|bound| kind.is_set(bound));
            let within = |bound: &Limits| other.limits.iter().any(|own| kind.is_set(own) && kind.holds(bound, own));
            if !bounds.into_iter().all(within) {
                return Err(Wider::Limit(kind.name()));
            }
        }
        self.roles.lack(&other.roles).map_or(Ok(()), |role| Err(Wider::Role(role)))
    }
}

impl Limits {
    /// Makes sure that each limit that `other` sets allows no more than this one; what it does not set
    /// doesn't count.
    ///
    /// # Errors
    /// [`Wider`]: the first that allows more.
    pub fn hold(&self, other: &Limits) -> Result<(), Wider> {
        let set = |kind: &Kind| kind.is_set(self) && kind.is_set(other);
        match Kind::ALL.into_iter().filter(set).find(|kind| !kind.holds(self, other)) {
            Some(kind) => Err(Wider::Limit(kind.name())),
            None => Ok(()),
        }
    }

    /// Returns these limits with those that `other` sets in their place.
    #[must_use]
    pub fn replaced_by(self, other: Limits) -> Limits {
        fn list<T>(own: Vec<T>, other: Vec<T>) -> Vec<T> {
            if other.is_empty() { own } else { other }
        }
        Limits {
            protocols: list(self.protocols, other.protocols),
            ips: list(self.ips, other.ips),
            user_agents: list(self.user_agents, other.user_agents),
            mimes: list(self.mimes, other.mimes),
            tags: list(self.tags, other.tags),
            max_file_size: other.max_file_size.or(self.max_file_size),
        }
    }
}

/// One of the limits on a token.
#[derive(Clone, Copy)]
enum Kind {
    Protocols,
    Addresses,
    UserAgents,
    Mimes,
    Tags,
    FileSize,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Protocols, Kind::Addresses, Kind::UserAgents, Kind::Mimes, Kind::Tags, Kind::FileSize];

    fn name(self) -> &'static str {
        match self {
            Kind::Protocols => "protocols",
            Kind::Addresses => "addresses",
            Kind::UserAgents => "user agents",
            Kind::Mimes => "media types",
            Kind::Tags => "tags",
            Kind::FileSize => "the file size",
        }
    }

    fn is_set(self, limits: &Limits) -> bool {
        match self {
            Kind::Protocols => !limits.protocols.is_empty(),
            Kind::Addresses => !limits.ips.is_empty(),
            Kind::UserAgents => !limits.user_agents.is_empty(),
            Kind::Mimes => !limits.mimes.is_empty(),
            Kind::Tags => !limits.tags.is_empty(),
            Kind::FileSize => limits.max_file_size.is_some(),
        }
    }

    /// Tells whether all that `inner` allows, `outer` allows too; both set this limit.
    fn holds(self, outer: &Limits, inner: &Limits) -> bool {
        fn each<T>(outer: &[T], inner: &[T], holds: impl Fn(&T, &T) -> bool) -> bool {
            inner.iter().all(|one| outer.iter().any(|other| holds(other, one)))
        }
        match self {
            Kind::Protocols => each(&outer.protocols, &inner.protocols, PartialEq::eq),
            Kind::Addresses => each(&outer.ips, &inner.ips, |net, one| net.contains(one)),
            // A star of the inner pattern fits a star of the outer one alone: whatever it stands for, that does.
            Kind::UserAgents => each(&outer.user_agents, &inner.user_agents, |p, one| p.fits(&one.to_string())),
            Kind::Mimes => each(&outer.mimes, &inner.mimes, |pattern, one| pattern.covers(one)),
            Kind::Tags => each(&outer.tags, &inner.tags, PartialEq::eq),
            Kind::FileSize => inner.max_file_size <= outer.max_file_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ByteSize, Protocol, UserAgentPattern};

    fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    }

    fn width(limits: &[&Limits]) -> Width {
        let limits = limits.iter().copied().cloned().collect();
        Width { access: Arc::default(), limits, roles: Roles::none(), cap: Time::MAX }
    }

    /// For each kind of limit: one, a narrower one, and one that is not narrower.
    fn cases() -> Vec<[Limits; 3]> {
        let agent = |text: &str| limits(|l| l.user_agents = vec![UserAgentPattern::new(text)]);
        let net = |text: &str| limits(|l| l.ips = vec![text.parse().expect("net")]);
        let doors = |doors: &[Protocol]| limits(|l| l.protocols = doors.to_vec());
        let mimes = |text: &str| limits(|l| l.mimes = vec![text.parse().expect("media type")]);
        let tags = |text: &[&str]| limits(|l| l.tags = text.iter().map(|tag| tag.parse().expect("tag")).collect());
        let size = |bytes| limits(|l| l.max_file_size = Some(ByteSize::from_bytes(bytes)));
        vec![
            [doors(&[Protocol::Sftp, Protocol::Api]), doors(&[Protocol::Api]), doors(&[Protocol::Webdav])],
            [net("192.0.2.0/24"), net("192.0.2.7/32"), net("192.0.0.0/16")],
            [net("0.0.0.0/0"), net("192.0.2.0/24"), net("::/0")],
            [agent("rclone/*"), agent("rclone/v1*"), agent("rclon*")],
            [agent("*dav*"), agent("davfs2/1.7"), agent("*da*v*")],
            [mimes("image/*"), mimes("image/png"), mimes("*/*")],
            [tags(&["a", "b"]), tags(&["b"]), tags(&["b", "c"])],
            [size(10), size(10), size(11)],
        ]
    }

    #[test]
    fn a_limit_holds_what_is_narrower_and_nothing_else() {
        for [outer, inner, wider] in cases() {
            assert_eq!(outer.hold(&inner), Ok(()), "{outer:?} {inner:?}");
            assert!(outer.hold(&wider).is_err(), "{outer:?} {wider:?}");
            assert_eq!(outer.hold(&Limits::default()), Ok(()), "what is not set does not count");
            assert_eq!(Limits::default().hold(&wider), Ok(()));
        }
    }

    #[test]
    fn a_token_without_a_limit_is_wider_than_one_with_it() {
        for [outer, inner, wider] in cases() {
            let bounded = width(&[&outer]);
            assert_eq!(bounded.holds(&width(&[&inner])), Ok(()));
            assert!(bounded.holds(&width(&[&Limits::default()])).is_err(), "{outer:?}");
            assert!(bounded.holds(&width(&[&wider])).is_err(), "{outer:?} {wider:?}");
            assert_eq!(bounded.holds(&width(&[&wider, &inner])), Ok(()), "the chain above it narrows it");
        }
    }

    #[test]
    fn what_is_set_takes_the_place_of_what_was() {
        for [outer, inner, _] in cases() {
            assert_eq!(outer.clone().replaced_by(inner.clone()), inner);
            assert_eq!(outer.clone().replaced_by(Limits::default()), outer);
        }
    }
}
