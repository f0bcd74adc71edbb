//! Random changes, some cut off by a crash, against what the index is to know after them.

use std::collections::HashMap;
use std::rc::Rc;

use proptest::prelude::*;

use super::tests::{World, at};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Make(String, Kind),
    Mint(String),
    Rename(String, String, Death),
    Remove(String, Death),
}

/// Where the server dies during a step, if it does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    None,
    BeforeHost,
    AfterHost,
}

/// For each id that lives, the inode of what it names.
struct Model {
    world: Rc<World>,
    living: HashMap<NodeId, u64>,
    ended: Vec<NodeId>,
}

impl Model {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Make(path, kind) => self.make(path, *kind),
            Step::Mint(path) => self.mint(path),
            Step::Rename(from, to, death) => self.rename(from, to, *death),
            Step::Remove(path, death) => self.remove(path, *death),
        }
        self.compare(step);
    }

    fn facts(&self, path: &str) -> Option<Facts> {
        self.world.host.ask(&at(path)).ok()
    }

    fn make(&self, path: &str, kind: Kind) {
        let parent = at(path).parent().and_then(|parent| self.world.host.ask(&parent).ok());
        let fits = parent.is_some_and(|parent| parent.kind == Kind::Folder);
        if fits && self.facts(path).is_none() {
            self.world.host.make(path, kind);
        }
    }

    fn mint(&mut self, path: &str) {
        let Ok(id) = self.world.index.mint(&at(path)) else { return };
        assert!(!self.ended.contains(&id), "an id came back to life");
        for named in self.world.index.list(&TreePath::root()).expect("list") {
            let inode = self.world.host.ask(&named.path).expect("there").inode;
            assert_eq!(*self.living.entry(named.id).or_insert(inode), inode);
        }
    }

    fn rename(&mut self, from: &str, to: &str, death: Death) {
        let (source, target) = (at(from), at(to));
        let parent = target.parent().and_then(|parent| self.world.host.ask(&parent).ok());
        let overlap = source.starts_with(&target) || target.starts_with(&source);
        let (Some(moved), false) = (self.facts(from), overlap) else { return };
        if parent.is_none_or(|parent| parent.kind != Kind::Folder) {
            return;
        }
        let replaced = self.facts(to);
        let world = Rc::clone(&self.world);
        let change = world.index.begin_move(&source, &target).expect("begun");
        if death != Death::BeforeHost {
            let kept = replaced.filter(|replaced| (replaced.kind, moved.kind) == (Kind::File, Kind::File));
            let heir = kept.and_then(|kept| self.named(kept.inode));
            self.end(|path| path.starts_with(&target), heir);
            if let Some(heir) = heir {
                self.end(|path| *path == source, None);
                self.living.insert(heir, moved.inode);
            }
            self.world.host.rename(from, to);
        }
        self.conclude(change, death);
    }

    fn remove(&mut self, path: &str, death: Death) {
        if self.facts(path).is_none() || at(path).is_root() {
            return;
        }
        let world = Rc::clone(&self.world);
        let change = world.index.begin_remove(&at(path)).expect("begun");
        if death != Death::BeforeHost {
            self.end(|p| p.starts_with(&at(path)), None);
            self.world.host.remove(path);
        }
        self.conclude(change, death);
    }

    fn conclude(&self, change: Change<'_>, death: Death) {
        match death {
            Death::None => change.finish().expect("finished"),
            Death::BeforeHost | Death::AfterHost => change.die(),
        }
        if death != Death::None {
            self.world.index.recover().expect("recovered");
        }
    }

    fn named(&self, inode: u64) -> Option<NodeId> {
        self.living.iter().find(|(_, named)| **named == inode).map(|(id, _)| *id)
    }

    /// Ends what stands where `gone` says, but for one.
    fn end(&mut self, gone: impl Fn(&TreePath) -> bool, but: Option<NodeId>) {
        let places = self.world.host.places();
        let ends = |id: &NodeId, inode: &u64| Some(*id) != but && places.get(inode).is_some_and(&gone);
        let ended: Vec<NodeId> = self.living.iter().filter(|(id, inode)| ends(id, inode)).map(|(id, _)| *id).collect();
        self.living.retain(|id, _| !ended.contains(id));
        self.ended.extend(ended);
    }

    fn compare(&self, step: &Step) {
        let places = self.world.host.places();
        for (id, inode) in &self.living {
            let place = self.world.index.locate(*id).expect("located");
            assert_eq!(place.as_ref(), places.get(inode), "{step:?}");
        }
        for id in &self.ended {
            assert_eq!(self.world.index.locate(*id).expect("located"), None, "{step:?}");
        }
        assert!(self.world.store.intents().expect("read").is_empty(), "{step:?}");
    }
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]", 1..3).prop_map(|parts| parts.join("/"))
}

fn step() -> impl Strategy<Value = Step> {
    let death = || prop_oneof![3 => Just(Death::None), 1 => Just(Death::BeforeHost), 1 => Just(Death::AfterHost)];
    let kind = prop_oneof![Just(Kind::File), Just(Kind::Folder)];
    prop_oneof![
        3 => (path(), kind).prop_map(|(path, kind)| Step::Make(path, kind)),
        3 => path().prop_map(Step::Mint),
        3 => (path(), path(), death()).prop_map(|(from, to, death)| Step::Rename(from, to, death)),
        1 => (path(), death()).prop_map(|(path, death)| Step::Remove(path, death)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn names_follow_whatever_happens_through_the_gateway(steps in proptest::collection::vec(step(), 1..100)) {
        let mut model = Model { world: World::new().into(), living: HashMap::new(), ended: Vec::new() };
        steps.iter().for_each(|step| model.take(step));
    }
}
