//! Schemas of scalar values in the OpenAPI document that `api` serves, each with a bound and an example.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::domain;

/// Declares schemas of strings: description, pattern, maximum length, example.
macro_rules! string_schemas {
    ($($name:ident: $description:literal, $pattern:literal, $max_length:literal, $example:literal;)*) => {
    $(
        #[doc = $description]
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let text = ObjectBuilder::new().schema_type(Type::String).description(Some($description));
                text.pattern(Some($pattern)).max_length(Some($max_length)).examples([$example]).into()
            }
        }

        impl ToSchema for $name {}
    )*

    /// Returns the schemas of strings by name.
    fn string_schema_list() -> Vec<(&'static str, RefOr<Schema>)> {
        vec![$((stringify!($name), $name::schema())),*]
    }
    };
}

/// Declares schemas of enumerations: description, values.
macro_rules! enum_schemas {
    ($($name:ident: $description:literal, $all:expr;)*) => {
        $(
            #[doc = $description]
            pub(crate) enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    let text = ObjectBuilder::new().schema_type(Type::String).description(Some($description));
                    text.enum_values(Some($all)).into()
                }
            }

            impl ToSchema for $name {}
        )*

        /// Returns the schemas of enumerations by name.
        fn enum_schema_list() -> Vec<(&'static str, RefOr<Schema>)> {
            vec![$((stringify!($name), $name::schema())),*]
        }
    };
}

/// Returns all schemas of scalar values by name.
pub(crate) fn all_schemas() -> impl Iterator<Item = (&'static str, RefOr<Schema>)> {
    string_schema_list().into_iter().chain(enum_schema_list()).chain(number_schemas())
}

enum_schemas! {
    Permission: "Permission to list and read (r), to change (w), or both; responses say rw.", ["r", "w", "rw", "wr"];
    Role: "A role: what a token may do beyond its own tokens.", domain::Role::ALL.map(domain::Role::as_str);
    State: "State of a token.", ["live", "expired", "revoked"];
    StateFilter: "A state to look for.", ["live", "expired", "revoked", "dangling"];
    Protocol: "A protocol.", ["webdav", "sftp", "api"];
    Operation: "An operation on the tree.", domain::TreeOperation::ALL.map(domain::TreeOperation::as_str);
    EventKind: "Kind of an event.", domain::EventKind::ALL.iter().map(|kind| kind.as_str());
}

/// Declares schemas of integers: description, minimum, maximum.
macro_rules! number_schemas {
    ($($name:ident: $description:literal, $minimum:literal, $maximum:expr;)*) => {
        $(#[doc = $description]
        pub(crate) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let number = ObjectBuilder::new().schema_type(Type::Integer).description(Some($description));
                number.minimum(Some($minimum)).maximum($maximum).into()
            }
        }

        impl ToSchema for $name {})*

        /// Returns the schemas of integers by name.
        fn number_schemas() -> Vec<(&'static str, RefOr<Schema>)> {
            vec![$((stringify!($name), $name::schema())),*]
        }
    };
}

number_schemas! {
    Bytes: "A number of bytes.", 0, None::<u64>;
    Count: "A positive number.", 1, Some(u32::MAX);
}

// The patterns must stay in step with the parsers of the values: a client may rely on it that what matches is
// accepted and that nothing else is.
string_schemas! {
    TokenId: "The public id of a token.", "^[0-9A-Za-z]{8}$", 8, "JhxND7ci";
    TokenText: "A token with its secret, shown once.", "^pgt_[0-9A-Za-z]{8}\\.[0-9A-Za-z]{38}$", 51,
        "pgt_JhxND7ci.0000000000000000000000000000000000aaaaaa";
    SshPublicKey: "An SSH public key: the line of a .pub file. A comment is ignored.",
        "^\\s*[a-z0-9@.-]+[ \\t]+[A-Za-z0-9+/=]+([ \\t][^\\r\\n]*)?\\s*$", 16384,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    Login: "The name that a user logs in with.", "^[A-Za-z0-9_@+][A-Za-z0-9._@+-]{0,63}$", 64, "alice";
    Label: "A name or description for people, on one line.", "^[^\\u0000-\\u001F\\u007F]*$", 200, "laptop";
    Time: "A time (RFC 3339); responses give it in UTC with whole seconds.",
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$", 35,
        "2030-05-05T08:00:00Z";
    UploadTime: "A time in UTC, or never.",
        "^([0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}|never)$", 19, "2030-05-05 08:00:00";
    Duration: "A whole number above zero and a unit: s, m, h, d, w, M (30 days) or Y (365 days).",
        "^[0-9]{1,12}[sSmhHdDwWMY]$", 13, "24h";
    Lifetime: "A duration, never where the policy allows it, or default.",
        "^([0-9]{1,12}[sSmhHdDwWMY]|never|default)$", 13, "30d";
    NodeId: "The stable id of a file or directory.",
        "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$", 36, "6f1c2c5e-8a55-4f0e-9d3c-0f4b6a2f7a11";
    Path: "A path of the served tree.", "^[^\\u0000]*$", 4096, "/projects/apollo";
    Scope: "A scope: a node by id or path, and a permission.",
        "^[ \\t]*(node:[0-9a-fA-F-]{36}|path:/[^\\u0000]*):(r|w|rw|wr)[ \\t]*$", 4096, "path:/projects:r";
    Network: "An address or a network.", "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$", 43, "192.0.2.0/24";
    ForeignRole: "A role of another service, which grants nothing here.",
        "^[a-z0-9_-]+(\\.[a-z0-9_-]+)+$", 64, "upload.images";
    AnyRole: "A role, or one of another service, which grants nothing here.",
        "^(admin|[a-z0-9_-]+(\\.[a-z0-9_-]+)+)$", 64, "upload.images";
    UserAgent: "A user agent; * matches anything.", "[^\\s]", 256, "rclone/*";
    Mime: "A media type, or a range such as image/*.",
        "^(\\*/\\*|[A-Za-z0-9!#$&^_.+-]+/(\\*|[A-Za-z0-9!#$&^_.+-]+))$", 255, "image/*";
    Tag: "A tag of a file.", "^[^, \\u0000-\\u001F\\u007F]([^,\\u0000-\\u001F\\u007F]{0,62}[^, \\u0000-\\u001F\\u007F])?$", 64, "holiday";
}
