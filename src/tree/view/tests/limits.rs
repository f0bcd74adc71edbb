//! Types, sizes and tags, as the limits of a token and of those above it allow them.

use std::fs;

use super::*;
use crate::domain::{ByteSize, Permission, TokenLimits};
use crate::store::testing::set_limits;
use crate::tree::{Attributes, EditMode, Overwrite, Property, PropertyChange, PropertyName, label, tags_property};

fn png() -> Vec<u8> {
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()
}

/// A folder with an image, a page and more below, and somebody who may upload images alone.
fn gallery() -> (House, View) {
    let house = House::new(&["/box/sub/deep"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.view("alice");
    fs::write(host(&house, "/box/a.png"), png()).expect("written");
    fs::write(host(&house, "/box/sub/b.png"), png()).expect("written");
    write(&house, "/box/page.html", "<html><p>x</p></html>");
    let mimes = vec!["image/*".parse().expect("type")];
    set_limits(&house.store, view.session().token(), &TokenLimits { mimes, ..TokenLimits::default() });
    view.session().access().expect("lives");
    (house, view)
}

fn upload(view: &View, path: &str, content: &[u8]) -> Result<()> {
    let upload = view.stage(&at(path), None, &NONE)?;
    upload.write_at(content, 0)?;
    upload.commit(&NONE).map(drop)
}

#[test]
fn an_upload_fits_by_content_and_by_name() {
    let (house, view) = gallery();
    let page: &[u8] = b"<html><p>x</p></html>";
    let cases: [(&str, &[u8], &str); 8] = [
        ("/box/new.png", &png(), "ok"),
        ("/box/new", &png(), "ok"),
        ("/box/empty.png", b"", "ok"),
        ("/box/empty", b"", "ok"),
        ("/box/new.html", &png(), "wrong type"),
        ("/box/page.png", page, "wrong type"),
        ("/box/words.png", b"words", "wrong type"),
        ("/box/page.html", b"", "wrong type"),
    ];
    for (path, content, wanted) in cases {
        assert_eq!(said(upload(&view, path, content)), wanted, "{path}");
        assert_eq!(host(&house, path).exists(), wanted == "ok" || path == "/box/page.html", "{path}");
    }
    assert_eq!(content(&house, "/box/page.html").as_bytes(), page);
    assert_eq!(said(view.stage(&at("/box/x.html"), None, &NONE).map(drop)), "wrong type", "before anything is sent");
    no_debris(&house);
}

#[test]
fn what_the_first_bytes_tell_is_refused_before_the_rest_is_sent() {
    let (house, view) = gallery();
    let upload = view.stage(&at("/box/a.png"), None, &NONE).expect("staged");
    upload.write_at(b"a", 0).expect("too little to tell");
    upload.write_at(&[0; 4000], 8).expect("not judged before what is missing");
    assert_eq!(said(upload.write_at(b"bcdefgh", 1)), "ok", "too little without a gap");
    upload.write_at(&png(), 0).expect("an image after all");
    drop(upload);
    let upload = view.stage(&at("/box/a.png"), None, &NONE).expect("staged");
    assert_eq!(said(upload.write_at(b"%PDF-1.7", 0)), "wrong type");
    upload.write_at(&png(), 0).expect("an image after all");
    assert_eq!(said(upload.commit(&NONE).map(drop)), "spoilt", "who knows what else was refused");
    assert_eq!(fs::read(host(&house, "/box/a.png")).expect("there"), png());
    no_debris(&house);
}

#[test]
fn an_edit_is_a_copy_that_is_judged_when_it_is_closed() {
    let (house, view) = gallery();
    let path = at("/box/a.png");
    let edit = |mode| view.edit(&path, mode, &NONE).expect("edit");
    let spoil = edit(EditMode::default());
    spoil.write_at(b"<html><b>", 0).expect("a copy");
    assert_eq!(fs::read(host(&house, "/box/a.png")).expect("there"), png(), "others see what was there");
    assert_eq!(said(spoil.close()), "wrong type");
    let append = edit(EditMode { append: true, ..EditMode::default() });
    append.write_at(b"more", 0).expect("written");
    assert_eq!(append.stat().expect("stat").size, png().len() as u64 + 4);
    append.close().expect("closed");
    assert_eq!(fs::read(host(&house, "/box/a.png")).expect("there"), [png(), b"more".to_vec()].concat());
    let before = view.stat(&path).expect("stat").etag;
    edit(EditMode { read: true, ..EditMode::default() }).close().expect("closed");
    assert_eq!(view.stat(&path).expect("stat").etag, before, "nothing was written");
    let (first, second) = (edit(EditMode::default()), edit(EditMode::default()));
    first.write_at(b"1", 30).expect("written");
    second.write_at(b"2", 30).expect("written");
    first.close().expect("closed");
    assert_eq!(said(second.close()), "precondition", "what was written meanwhile is not lost");
    let cut = edit(EditMode { truncate: true, ..EditMode::default() });
    cut.close().expect("an empty file fits");
    assert_eq!(content(&house, "/box/a.png"), "");
    assert_eq!(said(view.edit(&at("/box/page.html"), EditMode::default(), &NONE).map(drop)), "wrong type");
    let made = view.edit(&at("/box/made.png"), EditMode { create: true, ..EditMode::default() }, &NONE).expect("made");
    assert_eq!(content(&house, "/box/made.png"), "");
    made.write_at(&png(), 0).expect("written");
    made.close().expect("closed");
    assert_eq!(fs::read(host(&house, "/box/made.png")).expect("there"), png());
    no_debris(&house);
}

#[test]
fn whatever_gives_a_file_another_name_or_length_is_judged() {
    let (house, view) = gallery();
    let rename = |from: &str, to: &str| said(view.rename(&at(from), &at(to), Overwrite::No, &NONE).map(drop));
    let copy = |from: &str, to: &str| said(view.copy(&at(from), &at(to), true, Overwrite::No, &NONE).map(drop));
    let link = |from: &str, to: &str| said(view.hard_link(&at(from), &at(to), &NONE));
    let cut = |path: &str, size: u64| {
        let attributes = Attributes { size: Some(size), ..Attributes::default() };
        said(view.set_attributes(&at(path), &attributes, true, &NONE))
    };
    let before = content(&house, "/box/page.html");
    for act in [&rename as &dyn Fn(&str, &str) -> &'static str, &copy, &link] {
        assert_eq!(act("/box/a.png", "/box/a.html"), "wrong type");
        assert_eq!(act("/box/page.html", "/box/page.png"), "wrong type");
        assert_eq!(act("/box/page.html", "/box/sub/page.html"), "wrong type");
    }
    assert_eq!(said(view.symlink(b"a.png", &at("/box/l.html"), &NONE)), "wrong type");
    assert_eq!(said(view.symlink(b"a.png", &at("/box/l.png"), &NONE)), "ok");
    assert_eq!(rename("/box/l.png", "/box/l.html"), "wrong type");
    assert_eq!(cut("/box/page.html", 3), "wrong type");
    assert_eq!(cut("/box/a.png", 3), "wrong type", "no image any more");
    assert_eq!(cut("/box/a.png", 100), "ok");
    assert_eq!(rename("/box/sub", "/box/other"), "ok");
    write(&house, "/box/other/deep/words.txt", "words");
    assert_eq!(rename("/box/other", "/box/sub"), "wrong type", "a file below doesn't fit");
    assert_eq!(copy("/box/other", "/box/sub"), "wrong type");
    assert!(!host(&house, "/box/sub").exists());
    assert_eq!(copy("/box/a.png", "/box/c.png"), "ok");
    assert_eq!(link("/box/a.png", "/box/d.png"), "ok");
    assert_eq!(rename("/box/d.png", "/box/e.gif"), "ok");
    assert_eq!(content(&house, "/box/page.html"), before);
    no_debris(&house);
}

#[test]
fn what_may_not_be_read_is_not_told_of() {
    let house = House::new(&["/box"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.scoped("alice", &[("/box", Permission::W)]);
    write(&house, "/box/hidden.png", "<html><p>x</p></html>");
    let mimes = vec!["image/*".parse().expect("type")];
    set_limits(&house.store, view.session().token(), &TokenLimits { mimes, ..TokenLimits::default() });
    view.session().access().expect("lives");
    fs::write(host(&house, "/box/image.png"), png()).expect("written");
    for (folder, image) in [("/box/one", false), ("/box/two", true)] {
        fs::create_dir(host(&house, folder)).expect("made");
        let (name, content) = if image { ("a.png", png()) } else { ("a.html", b"<html>".to_vec()) };
        fs::write(host(&house, folder).join(name), content).expect("written");
    }
    let rename = |from: &str, to: &str| view.rename(&at(from), &at(to), Overwrite::No, &NONE);
    let across = |from: &str, to: &str| super::moves::across(&view, from, to, Overwrite::No);
    for path in ["/box/hidden.png", "/box/image.png"] {
        assert_eq!(said(rename(path, "/box/other.html")), "wrong type", "{path}: the name is judged");
        assert_eq!(said(across(path, "/box/other.html")), "wrong type", "{path}: the name is judged");
    }
    for path in ["/box/hidden.png", "/box/image.png", "/box/one", "/box/two"] {
        for act in [&rename as &dyn Fn(&str, &str) -> Result<bool>, &across] {
            assert_eq!(said(act(path, "/box/other.png")), "ok", "{path}: its content is not");
            assert_eq!(said(act("/box/other.png", path)), "ok", "{path}: its content is not");
        }
    }
    let cut = |path: &str, size| {
        let attributes = Attributes { size: Some(size), ..Attributes::default() };
        said(view.set_attributes(&at(path), &attributes, true, &NONE))
    };
    for path in ["/box/hidden.png", "/box/image.png"] {
        assert_eq!(said(view.edit(&at(path), EditMode::default(), &NONE).map(drop)), "forbidden", "{path}");
        let append = EditMode { append: true, ..EditMode::default() };
        assert_eq!(said(view.edit(&at(path), append, &NONE).map(drop)), "forbidden", "{path}");
        assert_eq!((cut(path, 12), cut(path, 100)), ("forbidden", "forbidden"), "{path}");
        let whole = view.edit(&at(path), EditMode { truncate: true, ..EditMode::default() }, &NONE).expect(path);
        whole.write_at(&png(), 0).expect(path);
        whole.close().expect(path);
        assert_eq!(cut(path, 0), "ok", "{path}");
        let empty = view.edit(&at(path), EditMode::default(), &NONE).expect("nothing to tell of");
        empty.write_at(&png(), 0).expect(path);
        empty.close().expect(path);
        assert_eq!(fs::read(host(&house, path)).expect(path), png());
    }
}

#[test]
fn a_folder_with_a_file_that_is_too_large_in_it_stays() {
    let house = House::new(&["/box/sub/deep"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.view("alice");
    write(&house, "/box/sub/deep/file", "12345");
    let max_file_size = Some(ByteSize::from_bytes(4));
    set_limits(&house.store, view.session().token(), &TokenLimits { max_file_size, ..TokenLimits::default() });
    view.session().access().expect("lives");
    let moved = view.rename(&at("/box/sub"), &at("/box/other"), Overwrite::No, &NONE).map(drop);
    assert_eq!(said(moved), "too large");
    assert_eq!(content(&house, "/box/sub/deep/file"), "12345");
}

fn tagged(view: &View, path: &str) -> Option<String> {
    let properties = view.properties(&at(path)).expect("read");
    properties.into_iter().find(|property| property.name == tags_property()).map(|property| property.value)
}

fn put_tagged(view: &View, path: &str, tags: &[&str]) -> Result<()> {
    let upload = view.stage(&at(path), None, &NONE)?;
    upload.write_at(b"x", 0)?;
    upload.label(tags.iter().map(|tag| tag.parse().expect("tag")).collect())?;
    upload.commit(&NONE).map(drop)
}

#[test]
fn tags_follow_a_file_and_are_only_those_that_the_token_may_give() {
    let house = House::new(&["/box"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.view("alice");
    put_tagged(&view, "/box/secret", &["secret"]).expect("tagged");
    assert_eq!(tagged(&view, "/box/secret").as_deref(), Some("<tags xmlns=\"urn:patgate\">secret</tags>"));
    let tags = vec!["a".parse().expect("tag"), "b".parse().expect("tag")];
    set_limits(&house.store, view.session().token(), &TokenLimits { tags, ..TokenLimits::default() });
    view.session().access().expect("lives");
    assert_eq!(said(put_tagged(&view, "/box/new", &["a", "c"])), "wrong tag");
    assert!(!host(&house, "/box/new").exists(), "a refused upload leaves nothing");
    put_tagged(&view, "/box/new", &["b", "a"]).expect("tagged");
    assert_eq!(tagged(&view, "/box/new").as_deref(), Some("<tags xmlns=\"urn:patgate\">b,a</tags>"));
    put_tagged(&view, "/box/new", &["a"]).expect("tagged");
    put(&view, "/box/new", "again").expect("put");
    assert_eq!(tagged(&view, "/box/new").as_deref(), Some("<tags xmlns=\"urn:patgate\">a</tags>"), "kept");
    view.copy(&at("/box/new"), &at("/box/copy"), true, Overwrite::No, &NONE).expect("copied");
    view.rename(&at("/box/copy"), &at("/box/moved"), Overwrite::No, &NONE).expect("moved");
    assert_eq!(tagged(&view, "/box/moved").as_deref(), Some("<tags xmlns=\"urn:patgate\">a</tags>"));
    let copied = view.copy(&at("/box/secret"), &at("/box/c"), true, Overwrite::No, &NONE);
    assert_eq!(said(copied.map(drop)), "wrong tag");
    let set = |change| said(view.set_properties(&at("/box/new"), &[change], &Attributes::default(), &NONE));
    assert_eq!(set(label(&["c".parse().expect("tag")])), "wrong tag");
    let disguised = "<t:tags xmlns:t=\"urn:patgate\">c</t:tags>".to_owned();
    assert_eq!(set(PropertyChange::Set(Property { name: tags_property(), value: disguised })), "unsupported");
    assert_eq!(set(label(&[])), "ok");
    assert_eq!(tagged(&view, "/box/new"), None);
    no_debris(&house);
}

#[test]
fn copy_whose_properties_can_not_all_be_named_is_refused_before_its_first_effect() {
    let house = House::new(&["/box/a/b", "/box/c"]);
    house.user("alice", &[("/box", Permission::RW)]);
    let view = house.view("alice");
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "color".to_owned() };
    let change = [PropertyChange::Set(Property { name, value: "<color xmlns=\"urn:x\"/>".to_owned() })];
    view.set_properties(&at("/box/a/b"), &change, &Attributes::default(), &NONE).expect("set");
    crate::store::testing::count_nodes(&house.store, 1_999_999);
    let refused = view.copy(&at("/box/a"), &at("/box/c/a"), true, Overwrite::No, &NONE);
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    assert!(!host(&house, "/box/c/a").exists());
    no_debris(&house);
    crate::store::testing::count_nodes(&house.store, 1_000);
    view.copy(&at("/box/a"), &at("/box/c/a"), true, Overwrite::No, &NONE).expect("copied");
}
