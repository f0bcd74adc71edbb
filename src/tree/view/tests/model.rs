//! Whatever is granted, scoped, renamed, moved and deleted, in whatever order: a session may do what
//! grants and scopes say of the nodes they were given on, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::domain::Permission;
use crate::store::testing::{login, now};
use crate::tree::{Attributes, Overwrite};

/// A path of the model: the names from the root.
type Way = Vec<&'static str>;

/// What grants and scopes are given on. A folder is itself wherever it goes; a file is its folder and
/// its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Folder(u32),
    File(u32, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder(u32),
    File,
}

type Rights = Vec<(Node, Permission)>;

/// What somebody does.
#[derive(Clone, Debug)]
enum Deed {
    Folder(Way),
    File(Way),
    Move(Way, Way),
    /// A move behind the gateway's back.
    Steal(Way, Way),
    Remove(Way),
    Grant(Way, Permission),
    Ungrant(Way),
    Token(Vec<(Way, Permission)>),
}

/// The tree, grants and scopes as the rule has them.
struct Model {
    entries: BTreeMap<Way, Kind>,
    grants: Rights,
    scopes: Vec<Option<Rights>>,
    folders: u32,
    /// Whether nothing happened behind the gateway's back: then all that is allowed works, too.
    exact: bool,
}

impl Model {
    fn new() -> Self {
        let entries = BTreeMap::from([(Way::new(), Kind::Folder(0))]);
        Self { entries, grants: Rights::new(), scopes: vec![None], folders: 0, exact: true }
    }

    fn folder(&self, way: &[&'static str]) -> Option<u32> {
        match self.entries.get(way) {
            Some(Kind::Folder(id)) => Some(*id),
            Some(Kind::File) | None => None,
        }
    }

    fn node(&self, way: &[&'static str]) -> Option<Node> {
        match self.entries.get(way)? {
            Kind::Folder(id) => Some(Node::Folder(*id)),
            Kind::File => {
                let (name, parent) = way.split_last()?;
                Some(Node::File(self.folder(parent)?, name))
            }
        }
    }

    /// Tells whether something new can be made there.
    fn is_free(&self, way: &[&'static str]) -> bool {
        let parent = way.split_last().and_then(|(_, parent)| self.folder(parent));
        parent.is_some() && !self.entries.contains_key(way)
    }

    fn can_move(&self, from: &Way, to: &Way) -> bool {
        self.entries.contains_key(from) && !from.is_empty() && self.is_free(to) && !to.starts_with(from)
    }

    fn carry(&mut self, from: &Way, to: &Way) {
        let carried: Vec<_> = self.entries.keys().filter(|way| way.starts_with(from)).cloned().collect();
        for way in carried {
            if let Some(kind) = self.entries.remove(&way) {
                self.entries.insert([to, &way[from.len()..]].concat(), kind);
            }
        }
    }

    fn rights(&mut self) -> impl Iterator<Item = &mut Rights> {
        std::iter::once(&mut self.grants).chain(self.scopes.iter_mut().flatten())
    }

    /// Moves an entry; what was given on it goes with it.
    fn rename(&mut self, from: &Way, to: &Way) {
        let before = self.node(from);
        self.carry(from, to);
        let after = self.node(to).expect("there");
        for right in self.rights().flat_map(|rights| rights.iter_mut()) {
            if Some(&right.0) == before.as_ref() {
                right.0 = after.clone();
            }
        }
    }

    /// Removes an entry and all below it; what was given there ends.
    fn remove(&mut self, way: &Way) {
        let inside = self.entries.keys().filter(|entry| entry.starts_with(way));
        let gone: Vec<Node> = inside.filter_map(|entry| self.node(entry)).collect();
        let ended = |node: &Node| match node {
            Node::File(folder, _) if gone.contains(&Node::Folder(*folder)) => true,
            node => gone.contains(node),
        };
        self.entries.retain(|entry, _| !entry.starts_with(way));
        self.rights().for_each(|rights| rights.retain(|(node, _)| !ended(node)));
    }

    fn may(&self, scopes: Option<&Rights>, way: &[&'static str]) -> Permission {
        let line: Vec<Node> = (0..=way.len()).filter_map(|depth| self.node(&way[..depth])).collect();
        let sum = |rights: &Rights| {
            let given = rights.iter().filter(|(node, _)| line.contains(node));
            given.fold(Permission::NONE, |sum, (_, permission)| sum | *permission)
        };
        scopes.map_or(Permission::RW, sum) & sum(&self.grants)
    }
}

/// The house beside its model.
struct Pair {
    house: House,
    model: Model,
    admin: View,
    views: Vec<View>,
}

impl Pair {
    fn new() -> Self {
        let house = House::new(&[]);
        house.user("alice", &[]);
        house.user("admin", &[("/", Permission::RW)]);
        let (admin, whole) = (house.view("admin"), house.view("alice"));
        Self { house, model: Model::new(), admin, views: vec![whole] }
    }

    /// Does something to both, where the model says that it can be done.
    fn act(&mut self, deed: &Deed) {
        let Self { house, model, admin, views } = self;
        match deed {
            Deed::Folder(way) if model.is_free(way) => {
                model.folders += 1;
                model.entries.insert(way.clone(), Kind::Folder(model.folders));
                admin.make_folder(&at(&text(way)), &Attributes::default(), &NONE).expect("made");
            }
            Deed::File(way) if model.is_free(way) => {
                model.entries.insert(way.clone(), Kind::File);
                put(admin, &text(way), "content").expect("put");
            }
            Deed::Move(from, to) if model.can_move(from, to) => {
                model.rename(from, to);
                admin.rename(&at(&text(from)), &at(&text(to)), Overwrite::No, &NONE).expect("moved");
            }
            Deed::Steal(from, to) if model.can_move(from, to) => {
                model.carry(from, to);
                model.exact = false;
                fs::rename(host(house, &text(from)), host(house, &text(to))).expect("moved");
            }
            Deed::Remove(way) if model.entries.contains_key(way) && !way.is_empty() => {
                model.remove(way);
                admin.remove_all(&at(&text(way)), &NONE).expect("removed");
            }
            Deed::Grant(way, permission) => {
                let Some(node) = model.node(way) else { return };
                model.grants.retain(|(granted, _)| *granted != node || !model.exact);
                model.grants.push((node, *permission));
                let scope = house.scope(&text(way), *permission);
                house.store.grant(&login("alice"), scope, now()).expect("granted");
            }
            Deed::Ungrant(way) if model.exact => {
                let Some(node) = model.node(way) else { return };
                model.grants.retain(|(granted, _)| *granted != node);
                let scope = house.scope(&text(way), Permission::R);
                house.store.revoke_grant(&login("alice"), scope.node).expect("taken back");
            }
            Deed::Token(scopes) if views.len() < 4 => {
                let there = scopes.iter().filter_map(|(way, p)| Some((way, model.node(way)?, *p)));
                let there: Vec<_> = there.collect();
                let typed: Vec<_> = there.iter().map(|(way, _, p)| (text(way), *p)).collect();
                let typed: Vec<_> = typed.iter().map(|(path, p)| (path.as_str(), *p)).collect();
                views.push(house.scoped("alice", &typed));
                let rights = there.into_iter().map(|(_, node, p)| (node, p)).collect();
                model.scopes.push(Some(rights));
            }
            Deed::Folder(_)
            | Deed::File(_)
            | Deed::Move(..)
            | Deed::Steal(..)
            | Deed::Remove(_)
            | Deed::Ungrant(_)
            | Deed::Token(_) => {}
        }
    }

    /// Tries everything everywhere with every token.
    fn compare(&self) -> std::result::Result<(), TestCaseError> {
        for (view, scopes) in self.views.iter().zip(&self.model.scopes) {
            for (way, kind) in &self.model.entries {
                let may = self.model.may(scopes.as_ref(), way);
                let (reads, writes) = match kind {
                    Kind::Folder(_) => (self.lists(view, scopes.as_ref(), way)?, self.makes(view, way)),
                    Kind::File => (get(view, &text(way)).is_ok(), put(view, &text(way), "content").is_ok()),
                };
                for (done, needed) in [(reads, Permission::R), (writes, Permission::W)] {
                    prop_assert!(!done || may.allows(needed), "{needed} {} though it may {may}", text(way));
                    prop_assert!(done || !may.allows(needed) || !self.model.exact, "no {needed} {}", text(way));
                }
            }
        }
        Ok(())
    }

    /// Tells whether a folder shows all that is in it; what else it shows leads to what may be reached.
    fn lists(&self, view: &View, scopes: Option<&Rights>, way: &Way) -> std::result::Result<bool, TestCaseError> {
        let Ok(shown) = names(view, &text(way)) else { return Ok(false) };
        let inside = |entry: &&Way| entry.len() > way.len() && entry.starts_with(way);
        let below: Vec<_> = self.model.entries.keys().filter(inside).collect();
        let all: BTreeSet<_> = below.iter().map(|entry| entry[way.len()]).collect();
        let reach = below.iter().filter(|entry| self.model.may(scopes, entry) != Permission::NONE);
        let leading: BTreeSet<_> = reach.map(|entry| entry[way.len()]).collect();
        if self.model.may(scopes, way).allows(Permission::R) {
            return Ok(shown.iter().map(String::as_str).eq(all));
        }
        let strange = shown.iter().find(|name| !leading.contains(name.as_str()));
        prop_assert_eq!(strange, None, "shown in {}", text(way));
        Ok(false)
    }

    /// Tells whether something can be made in a folder.
    fn makes(&self, view: &View, way: &Way) -> bool {
        let probe = at(&text(&[way.as_slice(), &["probe"]].concat()));
        let made = view.make_folder(&probe, &Attributes::default(), &NONE).is_ok();
        if made {
            self.admin.remove_folder(&probe, &NONE).expect("removed");
        }
        made
    }
}

fn text(way: &[&'static str]) -> String {
    format!("/{}", way.join("/"))
}

fn way() -> impl Strategy<Value = Way> {
    proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("c")], 1..4)
}

fn place() -> impl Strategy<Value = Way> {
    prop_oneof![1 => Just(Way::new()), 8 => way()]
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![Just(Permission::R), Just(Permission::W), Just(Permission::RW)]
}

fn deed(thieves: u32) -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => way().prop_map(Deed::Folder),
        3 => way().prop_map(Deed::File),
        6 => (way(), way()).prop_map(|(from, to)| Deed::Move(from, to)),
        thieves => (way(), way()).prop_map(|(from, to)| Deed::Steal(from, to)),
        1 => way().prop_map(Deed::Remove),
        5 => (place(), permission()).prop_map(|(way, permission)| Deed::Grant(way, permission)),
        1 => place().prop_map(Deed::Ungrant),
        3 => proptest::collection::vec((place(), permission()), 1..3).prop_map(Deed::Token),
    ]
}

/// Some folders and files to begin with, so that few deeds are about nothing.
fn deeds(thieves: u32) -> impl Strategy<Value = Vec<Deed>> {
    proptest::collection::vec(deed(thieves), 1..24).prop_map(|deeds| {
        let start = [
            Deed::Folder(vec!["a"]),
            Deed::Folder(vec!["a", "b"]),
            Deed::Folder(vec!["b"]),
            Deed::File(vec!["a", "c"]),
            Deed::File(vec!["a", "b", "c"]),
        ];
        start.into_iter().chain(deeds).collect()
    })
}

fn run(deeds: &[Deed]) -> std::result::Result<(), TestCaseError> {
    let mut pair = Pair::new();
    for deed in deeds {
        pair.act(deed);
        pair.compare()?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_may_be_done_is_what_grants_and_scopes_say(deeds in deeds(1).prop_map(|mut deeds| {
        deeds.retain(|deed| !matches!(deed, Deed::Steal(..)));
        deeds
    })) {
        run(&deeds)?;
    }

    #[test]
    fn nothing_behind_the_gateways_back_gives_more_than_grants_and_scopes_say(deeds in deeds(4)) {
        run(&deeds)?;
    }
}
