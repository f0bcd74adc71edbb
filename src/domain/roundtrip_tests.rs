//! Tests that every text and JSON form of a value that users, clients or the store keep is parsed back to the same
//! value.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

type PropertyTestResult = std::result::Result<(), TestCaseError>;

/// Checks that the text form of a value is parsed as the value.
fn assert_text_roundtrip<T: Display + FromStr + PartialEq + Debug>(value: &T) -> PropertyTestResult
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

/// Checks that the JSON form of a value is parsed as the value.
fn assert_json_roundtrip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> PropertyTestResult {
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

fn tag() -> impl Strategy<Value = FileTag> {
    "[^,\\p{Cc}]{1,64}".prop_filter_map("blank", |text| text.parse().ok())
}

fn user_agent() -> impl Strategy<Value = UserAgentPattern> {
    "\\PC{1,20}".prop_filter_map("blank", |text| text.parse().ok())
}

fn network() -> impl Strategy<Value = IpNet> {
    let four = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(bytes, length)| (std::net::IpAddr::from(bytes), length));
    let six = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(bytes, length)| (std::net::IpAddr::from(bytes), length));
    prop_oneof![four, six].prop_map(|(address, length)| IpNet::new(address, length).expect("a network").trunc())
}

fn limits() -> impl Strategy<Value = TokenLimits> {
    (
        subsequence(vec![Protocol::Webdav, Protocol::Sftp, Protocol::Api], 0..=3),
        vec(network(), 0..3),
        vec(user_agent(), 0..3),
        vec(mime(), 0..3),
        vec(tag(), 0..3),
        option::of(any::<u64>().prop_map(ByteSize::from_bytes)),
        option::of(any::<u64>().prop_map(ByteSize::from_bytes)),
    )
        .prop_map(|(protocols, ips, user_agents, mimes, tags, max_file_size, quota)| TokenLimits {
            protocols,
            ips,
            user_agents,
            mimes,
            tags,
            max_file_size,
            quota,
        })
}

proptest! {
    #[test]
    fn names_and_keywords_roundtrip(
        login in "[a-zA-Z0-9_@+][a-zA-Z0-9._@+-]{0,63}", id in "[a-zA-Z0-9]{8}", role in select(Role::ALL.to_vec()),
        permission in permission(), protocol in select(vec![Protocol::Webdav, Protocol::Sftp, Protocol::Api]),
    ) {
        let login: Login = login.parse().expect("a login");
        assert_text_roundtrip(&login)?;
        assert_json_roundtrip(&login)?;
        let id: TokenId = id.parse().expect("an id");
        assert_text_roundtrip(&id)?;
        assert_json_roundtrip(&id)?;
        assert_text_roundtrip(&role)?;
        assert_json_roundtrip(&role)?;
        assert_text_roundtrip(&permission)?;
        assert_json_roundtrip(&permission)?;
        assert_text_roundtrip(&protocol)?;
        assert_json_roundtrip(&protocol)?;
    }

    #[test]
    fn role_sets_roundtrip(roles in subsequence(Role::ALL.to_vec(), 0..=Role::ALL.len())) {
        assert_json_roundtrip(&roles.into_iter().collect::<Roles>())?;
    }

    #[test]
    fn durations_and_sizes_roundtrip(
        seconds in 1u64..=1000 * 365 * 86_400, bytes: u64, exact in 0u64..50, factor in 0usize..5,
    ) {
        assert_text_roundtrip(&Lifetime::from_secs(seconds).expect("in range"))?;
        let units = [1, 60, 3600, 86_400, 365 * 86_400];
        assert_text_roundtrip(&Lifetime::from_secs((exact + 1) * units[factor]).expect("in range"))?;
        assert_text_roundtrip(&ByteSize::from_bytes(bytes))?;
        assert_text_roundtrip(&ByteSize::from_bytes(exact << (10 * factor)))?;
        assert_json_roundtrip(&ByteSize::from_bytes(bytes))?;
    }

    #[test]
    fn scopes_roundtrip(
        bytes: [u8; 16], permission in permission(), names in vec("[^/\\p{Cc}]{1,12}", 0..5),
    ) {
        let node = NodeId::from_random(bytes);
        assert_text_roundtrip(&node)?;
        assert_json_roundtrip(&node)?;
        let scope = Scope { node, permission };
        assert_json_roundtrip(&scope)?;
        prop_assert_eq!(scope.to_string().parse(), Ok(ScopeTarget::Node(scope)));
        if let Ok(path) = TreePath::parse(names.join("/").as_bytes()) {
            let text = format!("path:/{}:{permission}", names.join("/"));
            prop_assert_eq!(text.parse(), Ok(ScopeTarget::Path(path, permission)));
        }
    }

    #[test]
    fn limits_roundtrip(limits in limits()) {
        assert_json_roundtrip(&limits)?;
        limits.mimes.iter().try_for_each(assert_text_roundtrip)?;
        limits.tags.iter().try_for_each(assert_text_roundtrip)?;
        for network in &limits.ips {
            prop_assert_eq!(parse_network(&network.to_string()), Ok(*network));
        }
    }

    #[test]
    fn expiries_roundtrip(at in 0..=UnixMillis::MAX.as_millis(), window_ms in 1u64..1 << 40) {
        let at = UnixMillis::from_millis(at);
        [TokenExpiry::Hard(at), TokenExpiry::Sliding { window_ms, cap: at }, TokenExpiry::Never].iter().try_for_each(assert_json_roundtrip)?;
    }

    #[test]
    fn parsers_never_panic(text in "\\PC{0,40}", bytes: Vec<u8>) {
        let _ = (text.parse::<Login>(), text.parse::<TokenId>(), text.parse::<Lifetime>(), text.parse::<ByteSize>());
        let _ = (text.parse::<ScopeTarget>(), text.parse::<MimePattern>(), text.parse::<FileTag>(), parse_network(&text));
        let _ = (text.parse::<Role>(), text.parse::<NodeId>(), Lifetime::parse_window(&text), TreePath::parse(&bytes));
        let _ = serde_json::from_slice::<TokenLimits>(&bytes);
    }
}
