//! Tests of the limits of a token and its parents: media types, sizes and tags.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::domain::{ByteSize, Permission, TokenLimits};
use crate::store::StoreError;
use crate::store::testing::{count_nodes, fill_disk, set_limits};
use crate::tree::{
    AttributeChanges, DeadProperty, EditMode, OverwriteMode, PropertyChange, PropertyName, set_tags_change,
    tags_property,
};

fn png_header() -> Vec<u8> {
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()
}

/// Creates a directory with an image, a page and more below, and a token that may upload images only.
fn image_only_fixture() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box/sub/deep"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    fs::write(host_path(&fixture, "/box/a.png"), png_header()).expect("written");
    fs::write(host_path(&fixture, "/box/sub/b.png"), png_header()).expect("written");
    write_outside_gateway(&fixture, "/box/page.html", "<html><p>x</p></html>");
    let mimes = vec!["image/*".parse().expect("type")];
    set_limits(&fixture.store, view.session().token(), &TokenLimits { mimes, ..TokenLimits::default() });
    view.session().access().expect("valid session");
    (fixture, view)
}

fn upload(view: &View, path: &str, content: &[u8]) -> Result<()> {
    let upload = view.stage(&tree_path(path), None, &NO_CONDITIONS)?;
    upload.write_at(content, 0)?;
    upload.commit(&NO_CONDITIONS).map(drop)
}

#[test]
fn upload_type_is_checked_by_content_and_name() {
    let (fixture, view) = image_only_fixture();
    let page: &[u8] = b"<html><p>x</p></html>";
    let cases: [(&str, &[u8], &str); 8] = [
        ("/box/new.png", &png_header(), "ok"),
        ("/box/new", &png_header(), "ok"),
        ("/box/empty.png", b"", "ok"),
        ("/box/empty", b"", "ok"),
        ("/box/new.html", &png_header(), "wrong type"),
        ("/box/page.png", page, "wrong type"),
        ("/box/words.png", b"words", "wrong type"),
        ("/box/page.html", b"", "wrong type"),
    ];
    for (path, content, expected) in cases {
        assert_eq!(outcome_name(upload(&view, path, content)), expected, "{path}");
        assert_eq!(host_path(&fixture, path).exists(), expected == "ok" || path == "/box/page.html", "{path}");
    }
    assert_eq!(read_outside_gateway(&fixture, "/box/page.html").as_bytes(), page);
    assert_eq!(
        outcome_name(view.stage(&tree_path("/box/x.html"), None, &NO_CONDITIONS).map(drop)),
        "wrong type",
        "before anything is sent"
    );
    assert_staging_empty(&fixture);
}

#[test]
fn disallowed_type_is_refused_by_first_bytes() {
    let (fixture, view) = image_only_fixture();
    let upload = view.stage(&tree_path("/box/a.png"), None, &NO_CONDITIONS).expect("staged");
    upload.write_at(b"a", 0).expect("too little to tell");
    upload.write_at(&[0; 4000], 8).expect("not checked before the gap is filled");
    assert_eq!(outcome_name(upload.write_at(b"bcdefgh", 1)), "ok", "too little without a gap");
    upload.write_at(&png_header(), 0).expect("an image after all");
    drop(upload);
    let upload = view.stage(&tree_path("/box/a.png"), None, &NO_CONDITIONS).expect("staged");
    assert_eq!(outcome_name(upload.write_at(b"%PDF-1.7", 0)), "wrong type");
    upload.write_at(&png_header(), 0).expect("an image after all");
    assert_eq!(
        outcome_name(upload.commit(&NO_CONDITIONS).map(drop)),
        "write failed",
        "who knows what else was refused"
    );
    assert_eq!(fs::read(host_path(&fixture, "/box/a.png")).expect("there"), png_header());
    assert_staging_empty(&fixture);
}

#[test]
fn edit_under_type_limit_is_a_copy_checked_at_close() {
    let (fixture, view) = image_only_fixture();
    let path = tree_path("/box/a.png");
    let edit = |mode| view.edit(&path, mode, &NO_CONDITIONS).expect("edit");
    let html_edit = edit(EditMode::default());
    html_edit.write_at(b"<html><b>", 0).expect("a copy");
    assert_eq!(fs::read(host_path(&fixture, "/box/a.png")).expect("there"), png_header(), "others see what was there");
    assert_eq!(outcome_name(html_edit.close()), "wrong type");
    let append = edit(EditMode { append: true, ..EditMode::default() });
    append.write_at(b"more", 0).expect("written");
    assert_eq!(append.stat().expect("stat").size, png_header().len() as u64 + 4);
    append.close().expect("closed");
    assert_eq!(fs::read(host_path(&fixture, "/box/a.png")).expect("there"), [png_header(), b"more".to_vec()].concat());
    let before = view.stat(&path).expect("stat").etag;
    edit(EditMode { read: true, ..EditMode::default() }).close().expect("closed");
    assert_eq!(view.stat(&path).expect("stat").etag, before, "nothing was written");
    let (first, second) = (edit(EditMode::default()), edit(EditMode::default()));
    first.write_at(b"1", 30).expect("written");
    second.write_at(b"2", 30).expect("written");
    first.close().expect("closed");
    assert_eq!(outcome_name(second.close()), "precondition", "what was written meanwhile is not lost");
    let truncate = edit(EditMode { truncate: true, ..EditMode::default() });
    truncate.close().expect("an empty file fits");
    assert_eq!(read_outside_gateway(&fixture, "/box/a.png"), "");
    assert_eq!(
        outcome_name(view.edit(&tree_path("/box/page.html"), EditMode::default(), &NO_CONDITIONS).map(drop)),
        "wrong type"
    );
    let created = view
        .edit(&tree_path("/box/made.png"), EditMode { create: true, ..EditMode::default() }, &NO_CONDITIONS)
        .expect("created");
    assert_eq!(read_outside_gateway(&fixture, "/box/made.png"), "");
    created.write_at(&png_header(), 0).expect("written");
    created.close().expect("closed");
    assert_eq!(fs::read(host_path(&fixture, "/box/made.png")).expect("there"), png_header());
    assert_staging_empty(&fixture);
}

#[test]
fn rename_copy_link_and_truncate_check_type_limit() {
    let (fixture, view) = image_only_fixture();
    let rename = |from: &str, to: &str| {
        outcome_name(view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS).map(drop))
    };
    let copy = |from: &str, to: &str| {
        outcome_name(view.copy(&tree_path(from), &tree_path(to), true, OverwriteMode::Refuse, &NO_CONDITIONS).map(drop))
    };
    let link = |from: &str, to: &str| outcome_name(view.hard_link(&tree_path(from), &tree_path(to), &NO_CONDITIONS));
    let truncate = |path: &str, size: u64| {
        let attributes = AttributeChanges { size: Some(size), ..AttributeChanges::default() };
        outcome_name(view.set_attributes(&tree_path(path), &attributes, true, &NO_CONDITIONS))
    };
    let before = read_outside_gateway(&fixture, "/box/page.html");
    for operation in [&rename as &dyn Fn(&str, &str) -> &'static str, &copy, &link] {
        assert_eq!(operation("/box/a.png", "/box/a.html"), "wrong type");
        assert_eq!(operation("/box/page.html", "/box/page.png"), "wrong type");
        assert_eq!(operation("/box/page.html", "/box/sub/page.html"), "wrong type");
    }
    assert_eq!(outcome_name(view.symlink(b"a.png", &tree_path("/box/l.html"), &NO_CONDITIONS)), "wrong type");
    assert_eq!(outcome_name(view.symlink(b"a.png", &tree_path("/box/l.png"), &NO_CONDITIONS)), "ok");
    assert_eq!(rename("/box/l.png", "/box/l.html"), "wrong type");
    assert_eq!(truncate("/box/page.html", 3), "wrong type");
    assert_eq!(truncate("/box/a.png", 3), "wrong type", "no image any more");
    assert_eq!(truncate("/box/a.png", 100), "ok");
    assert_eq!(rename("/box/sub", "/box/other"), "ok");
    write_outside_gateway(&fixture, "/box/other/deep/words.txt", "words");
    assert_eq!(rename("/box/other", "/box/sub"), "wrong type", "a file below doesn't fit");
    assert_eq!(copy("/box/other", "/box/sub"), "wrong type");
    assert!(!host_path(&fixture, "/box/sub").exists());
    assert_eq!(copy("/box/a.png", "/box/c.png"), "ok");
    assert_eq!(link("/box/a.png", "/box/d.png"), "ok");
    assert_eq!(rename("/box/d.png", "/box/e.gif"), "ok");
    assert_eq!(read_outside_gateway(&fixture, "/box/page.html"), before);
    assert_staging_empty(&fixture);
}

#[test]
fn type_limit_reveals_nothing_about_unreadable_files() {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.scoped_view("alice", &[("/box", Permission::W)]);
    write_outside_gateway(&fixture, "/box/hidden.png", "<html><p>x</p></html>");
    let mimes = vec!["image/*".parse().expect("type")];
    set_limits(&fixture.store, view.session().token(), &TokenLimits { mimes, ..TokenLimits::default() });
    view.session().access().expect("valid session");
    fs::write(host_path(&fixture, "/box/image.png"), png_header()).expect("written");
    for (directory, image) in [("/box/one", false), ("/box/two", true)] {
        fs::create_dir(host_path(&fixture, directory)).expect("created");
        let (name, content) = if image { ("a.png", png_header()) } else { ("a.html", b"<html>".to_vec()) };
        fs::write(host_path(&fixture, directory).join(name), content).expect("written");
    }
    let rename =
        |from: &str, to: &str| view.rename(&tree_path(from), &tree_path(to), OverwriteMode::Refuse, &NO_CONDITIONS);
    let move_across = |from: &str, to: &str| super::moves::move_cross_device(&view, from, to, OverwriteMode::Refuse);
    for path in ["/box/hidden.png", "/box/image.png"] {
        assert_eq!(outcome_name(rename(path, "/box/other.html")), "wrong type", "{path}: the name is checked");
        assert_eq!(outcome_name(move_across(path, "/box/other.html")), "wrong type", "{path}: the name is checked");
    }
    for path in ["/box/hidden.png", "/box/image.png", "/box/one", "/box/two"] {
        for operation in [&rename as &dyn Fn(&str, &str) -> Result<bool>, &move_across] {
            assert_eq!(outcome_name(operation(path, "/box/other.png")), "ok", "{path}: its content is not");
            assert_eq!(outcome_name(operation("/box/other.png", path)), "ok", "{path}: its content is not");
        }
    }
    let truncate = |path: &str, size| {
        let attributes = AttributeChanges { size: Some(size), ..AttributeChanges::default() };
        outcome_name(view.set_attributes(&tree_path(path), &attributes, true, &NO_CONDITIONS))
    };
    for path in ["/box/hidden.png", "/box/image.png"] {
        assert_eq!(
            outcome_name(view.edit(&tree_path(path), EditMode::default(), &NO_CONDITIONS).map(drop)),
            "forbidden",
            "{path}"
        );
        let append = EditMode { append: true, ..EditMode::default() };
        assert_eq!(outcome_name(view.edit(&tree_path(path), append, &NO_CONDITIONS).map(drop)), "forbidden", "{path}");
        assert_eq!((truncate(path, 12), truncate(path, 100)), ("forbidden", "forbidden"), "{path}");
        let unlimited = view
            .edit(&tree_path(path), EditMode { truncate: true, ..EditMode::default() }, &NO_CONDITIONS)
            .expect(path);
        unlimited.write_at(&png_header(), 0).expect(path);
        unlimited.close().expect(path);
        assert_eq!(truncate(path, 0), "ok", "{path}");
        let empty = view.edit(&tree_path(path), EditMode::default(), &NO_CONDITIONS).expect("nothing to tell of");
        empty.write_at(&png_header(), 0).expect(path);
        empty.close().expect(path);
        assert_eq!(fs::read(host_path(&fixture, path)).expect(path), png_header());
    }
}

#[test]
fn directory_with_too_large_file_is_not_moved() {
    let fixture = TreeFixture::new(&["/box/sub/deep"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    write_outside_gateway(&fixture, "/box/sub/deep/file", "12345");
    let max_file_size = Some(ByteSize::from_bytes(4));
    set_limits(&fixture.store, view.session().token(), &TokenLimits { max_file_size, ..TokenLimits::default() });
    view.session().access().expect("valid session");
    let moved =
        view.rename(&tree_path("/box/sub"), &tree_path("/box/other"), OverwriteMode::Refuse, &NO_CONDITIONS).map(drop);
    assert_eq!(outcome_name(moved), "too large");
    assert_eq!(read_outside_gateway(&fixture, "/box/sub/deep/file"), "12345");
}

fn tags_value(view: &View, path: &str) -> Option<String> {
    let properties = view.properties(&tree_path(path)).expect("read");
    properties.into_iter().find(|property| property.name == tags_property()).map(|property| property.value)
}

fn put_with_tags(view: &View, path: &str, tags: &[&str]) -> Result<()> {
    let upload = view.stage(&tree_path(path), None, &NO_CONDITIONS)?;
    upload.write_at(b"x", 0)?;
    upload.set_tags(tags.iter().map(|tag| tag.parse().expect("tag")).collect())?;
    upload.commit(&NO_CONDITIONS).map(drop)
}

#[test]
fn tags_follow_file_and_are_limited_by_token() {
    let fixture = TreeFixture::new(&["/box"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    put_with_tags(&view, "/box/secret", &["secret"]).expect("tagged");
    assert_eq!(tags_value(&view, "/box/secret").as_deref(), Some("<tags xmlns=\"urn:patgate\">secret</tags>"));
    let tags = vec!["a".parse().expect("tag"), "b".parse().expect("tag")];
    set_limits(&fixture.store, view.session().token(), &TokenLimits { tags, ..TokenLimits::default() });
    view.session().access().expect("valid session");
    assert_eq!(outcome_name(put_with_tags(&view, "/box/new", &["a", "c"])), "wrong tag");
    assert!(!host_path(&fixture, "/box/new").exists(), "a refused upload leaves nothing");
    put_with_tags(&view, "/box/new", &["b", "a"]).expect("tagged");
    assert_eq!(tags_value(&view, "/box/new").as_deref(), Some("<tags xmlns=\"urn:patgate\">b,a</tags>"));
    put_with_tags(&view, "/box/new", &["a"]).expect("tagged");
    put(&view, "/box/new", "again").expect("put");
    assert_eq!(tags_value(&view, "/box/new").as_deref(), Some("<tags xmlns=\"urn:patgate\">a</tags>"), "kept");
    view.copy(&tree_path("/box/new"), &tree_path("/box/copy"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copied");
    view.rename(&tree_path("/box/copy"), &tree_path("/box/moved"), OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("moved");
    assert_eq!(tags_value(&view, "/box/moved").as_deref(), Some("<tags xmlns=\"urn:patgate\">a</tags>"));
    let copied =
        view.copy(&tree_path("/box/secret"), &tree_path("/box/c"), true, OverwriteMode::Refuse, &NO_CONDITIONS);
    assert_eq!(outcome_name(copied.map(drop)), "wrong tag");
    let set = |change| {
        outcome_name(view.set_properties(
            &tree_path("/box/new"),
            &[change],
            &AttributeChanges::default(),
            &NO_CONDITIONS,
        ))
    };
    assert_eq!(set(set_tags_change(&["c".parse().expect("tag")])), "wrong tag");
    let disguised = "<t:tags xmlns:t=\"urn:patgate\">c</t:tags>".to_owned();
    assert_eq!(set(PropertyChange::Set(DeadProperty { name: tags_property(), value: disguised })), "unsupported");
    assert_eq!(set(set_tags_change(&[])), "ok");
    assert_eq!(tags_value(&view, "/box/new"), None);
    assert_staging_empty(&fixture);
}

#[test]
fn copy_exceeding_named_node_limit_is_refused_before_any_change() {
    let fixture = TreeFixture::new(&["/box/a/b", "/box/c"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "color".to_owned() };
    let change = [PropertyChange::Set(DeadProperty { name, value: "<color xmlns=\"urn:x\"/>".to_owned() })];
    view.set_properties(&tree_path("/box/a/b"), &change, &AttributeChanges::default(), &NO_CONDITIONS).expect("set");
    crate::store::testing::count_nodes(&fixture.store, 1_999_999);
    let refused = view.copy(&tree_path("/box/a"), &tree_path("/box/c/a"), true, OverwriteMode::Refuse, &NO_CONDITIONS);
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");
    assert!(!host_path(&fixture, "/box/c/a").exists());
    assert_staging_empty(&fixture);
    crate::store::testing::count_nodes(&fixture.store, 1_000);
    view.copy(&tree_path("/box/a"), &tree_path("/box/c/a"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copied");
}

/// Creates a directory of alice with a file that has a property.
fn fixture_with_property() -> (TreeFixture, View) {
    let fixture = TreeFixture::new(&["/box", "/box/d"]);
    fixture.create_user("alice", &[("/box", Permission::RW)]);
    let view = fixture.view("alice");
    write_outside_gateway(&fixture, "/box/d/f", "content");
    let name = PropertyName { namespace: "urn:x".to_owned(), name: "p".to_owned() };
    let set = [PropertyChange::Set(DeadProperty { name, value: "<p xmlns=\"urn:x\">1</p>".to_owned() })];
    let none = AttributeChanges::default();
    view.set_properties(&tree_path("/box/d/f"), &set, &none, &NO_CONDITIONS).expect("set");
    (fixture, view)
}

#[test]
fn copy_is_refused_where_quota_is_used_up_while_it_is_made() {
    let (fixture, view) = fixture_with_property();
    let calls = AtomicU32::new(0);
    // Conditions are evaluated before the copying, and again when the copy is about to be visible.
    let evaluate = || {
        if calls.fetch_add(1, Ordering::Relaxed) == 1 {
            count_nodes(&fixture.store, 10_000_000);
        }
        Ok(())
    };
    let conditions = WriteConditions { lock_tokens: &[], evaluate: &evaluate };
    let copied = view.copy(&tree_path("/box/d"), &tree_path("/box/copy"), true, OverwriteMode::Refuse, &conditions);
    assert!(matches!(copied, Err(Error::Store(StoreError::QuotaExceeded(_)))), "{copied:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert!(!host_path(&fixture, "/box/copy").exists(), "refused, and made all the same");
}

#[test]
fn copy_that_is_visible_gets_its_properties_on_a_full_disk() {
    let (fixture, view) = fixture_with_property();
    assert!(fixture.store.restore_ballast().expect("allocated"));
    fill_disk(2);
    view.copy(&tree_path("/box/d"), &tree_path("/box/copy"), true, OverwriteMode::Refuse, &NO_CONDITIONS)
        .expect("copied");
    let copied = view.resolve(&tree_path("/box/copy/f")).expect("there").properties().expect("read");
    assert_eq!(copied.len(), 1);
}
