//! Things are done on the state directory, as its administrator.

use super::super::site::Open;
use super::super::{Failure, Result};
use super::{Desk, PAGE, nothing_at};
use crate::api::shape::{
    EventShown, NewToken, NewUser, Node, PolicyShown, Reach, Revealed, Token, UserShown, VerdictShown,
};
use crate::domain::{Lifetime, Login, NodeId, Question, Roles, Setting, TokenId, TokenText, TreePath};
use crate::store::{Cursor, EventFilter, TokenRecord};
use crate::tokens::{
    self, Authority, Grant, GrantPlace, Home, Issued, Rotated, StateFilter, TokenQuery, TokenRequest, UserRequest,
};
use crate::tree;

const ADMINISTRATOR: &Authority = &Authority::Administrator;

/// The state directory.
pub(in crate::cli) struct Here(pub(in crate::cli) Open);

impl Desk for Here {
    fn caller(&self) -> Result<Option<Login>> {
        Ok(None)
    }

    fn create_token(&self, request: TokenRequest) -> Result<NewToken> {
        let Issued { text, record } = self.0.issue(request)?;
        Ok(reveal(&text, &record))
    }

    fn token(&self, id: TokenId) -> Result<Token> {
        Ok(Token::of(&self.0.looking().find(ADMINISTRATOR, id)?))
    }

    fn tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<Token>> {
        let tokens = self.0.looking();
        let mut query = TokenQuery { owner: owner.cloned(), state, ..TokenQuery::default() };
        let mut shown = Vec::new();
        loop {
            let page = tokens.page(ADMINISTRATOR, &query, PAGE)?;
            shown.extend(page.items.iter().map(Token::of));
            query.after = page.next;
            if query.after.is_none() {
                return Ok(shown);
            }
        }
    }

    fn revoke(&self, ids: &[TokenId]) -> Result {
        Ok(self.0.tokens.revoke(ADMINISTRATOR, ids)?)
    }

    fn revoke_all(&self, owner: &Login) -> Result<usize> {
        Ok(self.0.tokens.revoke_all(ADMINISTRATOR, owner)?)
    }

    fn rotate(&self, id: TokenId, grace: Option<Lifetime>) -> Result<NewToken> {
        let Rotated { text, record } = self.0.looking().rotate(ADMINISTRATOR, id, grace)?;
        Ok(reveal(&text, &record))
    }

    fn create_user(&self, request: &UserRequest) -> Result<NewUser> {
        let alone = request.home == Home::No && request.grants.is_empty();
        let tokens = if alone { self.0.tokens.clone() } else { self.0.with_tree()? };
        let created = tokens.create_user(ADMINISTRATOR, request)?;
        Ok(NewUser::of(self.user(&request.login)?, &created))
    }

    fn users(&self) -> Result<Vec<UserShown>> {
        let (tokens, mut users, mut after) = (self.0.looking(), Vec::new(), None);
        loop {
            let page = tokens.profiles(ADMINISTRATOR, after.as_ref(), PAGE)?;
            users.extend(page.items.into_iter().map(UserShown::of));
            after = page.next;
            if after.is_none() {
                return Ok(users);
            }
        }
    }

    fn user(&self, login: &Login) -> Result<UserShown> {
        Ok(UserShown::of(self.0.looking().profile(ADMINISTRATOR, login)?))
    }

    fn disable(&self, login: &Login, disabled: bool) -> Result {
        match disabled {
            true => Ok(self.0.tokens.disable_user(ADMINISTRATOR, login)?),
            false => Ok(self.0.tokens.enable_user(ADMINISTRATOR, login)?),
        }
    }

    fn set_roles(&self, login: &Login, roles: &Roles) -> Result {
        Ok(self.0.tokens.set_roles(ADMINISTRATOR, login, roles)?)
    }

    fn delete_user(&self, login: &Login) -> Result {
        Ok(self.0.tokens.delete_user(ADMINISTRATOR, login)?)
    }

    fn grants(&self, login: &Login) -> Result<Vec<Reach>> {
        Ok(self.0.looking().grants(ADMINISTRATOR, login)?.iter().map(Reach::of).collect())
    }

    fn grant(&self, login: &Login, grant: &Grant) -> Result {
        self.0.with_tree()?.grant(ADMINISTRATOR, login, grant)?;
        Ok(())
    }

    fn revoke_grant(&self, login: &Login, place: &GrantPlace) -> Result {
        Ok(self.0.tokens.revoke_grant(ADMINISTRATOR, login, place)?)
    }

    fn node_at(&self, path: &TreePath) -> Result<Node> {
        let node = self.0.tree()?.mint(path).map_err(|error| refused(path, &error))?;
        Ok(Node { node, path: path.to_string(), dangling: false })
    }

    fn node(&self, id: NodeId) -> Result<Node> {
        let path = self.0.tree()?.locate(id)?.ok_or(tokens::Error::UnknownNode(id))?;
        Ok(Node { node: id, path: path.to_string(), dangling: false })
    }

    fn nodes(&self, under: &TreePath) -> Result<Vec<Node>> {
        Ok(self.0.tree()?.nodes(under)?.iter().map(Node::of).collect())
    }

    fn policy(&self) -> Result<PolicyShown> {
        Ok(self.0.tokens.policy(ADMINISTRATOR)?.into())
    }

    fn set_policy(&self, setting: Setting) -> Result<PolicyShown> {
        Ok(self.0.tokens.change_policy(ADMINISTRATOR, &[setting])?.into())
    }

    fn events(&self, filter: &EventFilter, cursor: Cursor, limit: usize) -> Result<Vec<EventShown>> {
        let events = self.0.tokens.events(ADMINISTRATOR, filter, cursor, limit)?;
        Ok(events.into_iter().map(EventShown::of).collect())
    }

    fn explain(&self, token: TokenId, question: &Question) -> Result<VerdictShown> {
        Ok(VerdictShown::of(&self.0.looking().explain(ADMINISTRATOR, token, question)?))
    }
}

fn reveal(text: &TokenText, record: &TokenRecord) -> NewToken {
    NewToken { token: Revealed::from(text.reveal().to_string()), record: Token::of(record) }
}

fn refused(path: &TreePath, error: &tree::Error) -> Failure {
    match error {
        tree::Error::Absent | tree::Error::NotFolder => nothing_at(path),
        tree::Error::Unsupported => {
            Failure::new(format!("{path} is neither a file nor a folder")).hint("give the path that the link leads to")
        }
        other => Failure::new(other.to_string()),
    }
}
