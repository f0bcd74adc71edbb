//! What goes over the wire in JSON, both ways: one shape for REST and for the command line.

mod event;
mod order;
mod site;
mod text;
mod token;
mod user;
mod verdict;

pub use super::error::Problem;
pub use super::tokens::{RevocationOrder, Revoked};
pub use event::EventShown;
pub use order::{Rotation, TokenChange, TokenOrder};
pub use site::{Node, PolicyChange, PolicyShown};
pub use text::{Object, Revealed, Text};
pub(super) use text::{object, object_or_nothing};
pub(super) use token::user_agents;
pub use token::{LastUse, Limits, NewToken, Reach, Token};
pub use user::{GrantOrder, NewUser, UserChange, UserOrder, UserShown};
pub use verdict::{QuestionOrder, SourceShown, VerdictShown};
