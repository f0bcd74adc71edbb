//! What is written is read again as it was: every text form of a value that people, stores or callers
//! keep.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

type Outcome = std::result::Result<(), TestCaseError>;

/// Its text is read as itself.
fn typed<T: Display + FromStr + PartialEq + Debug>(value: &T) -> Outcome
where
    T::Err: Debug,
{
    let text = value.to_string();
    match text.parse::<T>() {
        Ok(read) => prop_assert_eq!(&read, value, "{}", text),
        Err(error) => prop_assert!(false, "{text:?}: {error:?}"),
    }
    Ok(())
}

/// Its JSON is read as itself.
fn kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Outcome {
    let json = serde_json::to_string(value).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let read: T = serde_json::from_str(&json).map_err(|error| TestCaseError::fail(format!("{json}: {error}")))?;
    prop_assert_eq!(&read, value, "{}", json);
    Ok(())
}

fn permission() -> impl Strategy<Value = Permission> {
    select(vec![Permission::R, Permission::W, Permission::RW])
}

fn mime() -> impl Strategy<Value = MimePattern> {
    prop_oneof!["[a-zA-Z0-9!#$&^_.+-]{1,20}/[a-zA-Z0-9!#$&^_.+-]{1,20}", "[a-z]{1,8}/\\*", Just("*/*".to_owned()),]
        .prop_map(|text| text.parse().expect("a media type"))
}

fn tag() -> impl Strategy<Value = Tag> {
    "[^,\\p{Cc}]{1,64}".prop_filter_map("blank", |text| text.parse().ok())
}

fn network() -> impl Strategy<Value = IpNet> {
    let four = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(bytes, length)| (std::net::IpAddr::from(bytes), length));
    let six = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(bytes, length)| (std::net::IpAddr::from(bytes), length));
    prop_oneof![four, six].prop_map(|(address, length)| IpNet::new(address, length).expect("a network").trunc())
}

fn limits() -> impl Strategy<Value = Limits> {
    (
        subsequence(vec![Protocol::Webdav, Protocol::Sftp, Protocol::Api], 0..=3),
        vec(network(), 0..3),
        vec("\\PC{0,20}".prop_map(UserAgentPattern::new), 0..3),
        vec(mime(), 0..3),
        vec(tag(), 0..3),
        option::of(any::<u64>().prop_map(ByteSize::from_bytes)),
    )
        .prop_map(|(protocols, ips, user_agents, mimes, tags, max_file_size)| Limits {
            protocols,
            ips,
            user_agents,
            mimes,
            tags,
            max_file_size,
        })
}

proptest! {
    #[test]
    fn names_and_words_are_read_as_they_are_written(
        login in "[a-zA-Z0-9_@+][a-zA-Z0-9._@+-]{0,63}", id in "[a-zA-Z0-9]{8}", role in select(Role::ALL.to_vec()),
        permission in permission(), protocol in select(vec![Protocol::Webdav, Protocol::Sftp, Protocol::Api]),
    ) {
        let login: Login = login.parse().expect("a login");
        typed(&login)?;
        kept(&login)?;
        let id: TokenId = id.parse().expect("an id");
        typed(&id)?;
        kept(&id)?;
        typed(&role)?;
        kept(&role)?;
        typed(&permission)?;
        kept(&permission)?;
        typed(&protocol)?;
        kept(&protocol)?;
    }

    #[test]
    fn sets_of_roles_are_kept(roles in subsequence(Role::ALL.to_vec(), 0..=Role::ALL.len())) {
        kept(&roles.into_iter().collect::<Roles>())?;
    }

    #[test]
    fn durations_and_sizes_are_read_as_they_are_written(
        seconds in 1u64..=1000 * 365 * 86_400, bytes: u64, exact in 0u64..50, factor in 0usize..5,
    ) {
        typed(&Lifetime::from_secs(seconds).expect("in range"))?;
        let units = [1, 60, 3600, 86_400, 365 * 86_400];
        typed(&Lifetime::from_secs((exact + 1) * units[factor]).expect("in range"))?;
        typed(&ByteSize::from_bytes(bytes))?;
        typed(&ByteSize::from_bytes(exact << (10 * factor)))?;
        kept(&ByteSize::from_bytes(bytes))?;
    }

    #[test]
    fn scopes_are_read_as_they_are_written(
        bytes: [u8; 16], permission in permission(), names in vec("[^/\\p{Cc}]{1,12}", 0..5),
    ) {
        let node = NodeId::from_random(bytes);
        typed(&node)?;
        kept(&node)?;
        let scope = Scope { node, permission };
        kept(&scope)?;
        prop_assert_eq!(scope.to_string().parse(), Ok(ScopeTarget::Node(scope)));
        if let Ok(path) = TreePath::parse(names.join("/").as_bytes()) {
            let text = format!("path:/{}:{permission}", names.join("/"));
            prop_assert_eq!(text.parse(), Ok(ScopeTarget::Path(path, permission)));
        }
    }

    #[test]
    fn limits_are_kept(limits in limits()) {
        kept(&limits)?;
        limits.mimes.iter().try_for_each(typed)?;
        limits.tags.iter().try_for_each(typed)?;
        for network in &limits.ips {
            prop_assert_eq!(parse_network(&network.to_string()), Ok(*network));
        }
    }

    #[test]
    fn expiries_are_kept(at in 0..=Time::MAX.as_millis(), window_ms in 1u64..1 << 40) {
        let at = Time::from_millis(at);
        [Expiry::Hard(at), Expiry::Sliding { window_ms, cap: at }, Expiry::Never].iter().try_for_each(kept)?;
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in "\\PC{0,40}", bytes: Vec<u8>) {
        let _ = (text.parse::<Login>(), text.parse::<TokenId>(), text.parse::<Lifetime>(), text.parse::<ByteSize>());
        let _ = (text.parse::<ScopeTarget>(), text.parse::<MimePattern>(), text.parse::<Tag>(), parse_network(&text));
        let _ = (text.parse::<Role>(), text.parse::<NodeId>(), Lifetime::parse_window(&text), TreePath::parse(&bytes));
        let _ = serde_json::from_slice::<Limits>(&bytes);
    }
}
