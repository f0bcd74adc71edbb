//! The checker finds each kind of violation, and none in a history without.

use crate::checker::violations;
use crate::history::{ALLOWED, Change, DENIED, History, Observation, Outcome, Seen, Span, Value};

/// Builds histories of one register, `file:a`, and of others by name.
#[derive(Default)]
struct HistoryBuilder(History);

impl HistoryBuilder {
    fn change(self, value: Value, span: (u64, u64), outcome: Outcome) -> Self {
        self.change_of("file:a", value, span, outcome)
    }

    fn change_of(mut self, register: &str, value: Value, (start, end): (u64, u64), outcome: Outcome) -> Self {
        let operation = self.0.changes.len() as u64;
        let span = Span { start, end };
        self.0.changes.push(Change { register: register.to_owned(), operation, value, span, outcome, etag: None });
        self
    }

    fn see(self, value: Value, span: (u64, u64)) -> Self {
        self.see_of("file:a", Seen::Value(value), span)
    }

    fn see_of(mut self, register: &str, seen: Seen, (start, end): (u64, u64)) -> Self {
        let span = Span { start, end };
        self.0.observations.push(Observation { register: register.to_owned(), seen, span, etag: None });
        self
    }

    /// Sets the entity tag of the last observation.
    fn tagged(mut self, etag: &str) -> Self {
        self.0.observations.last_mut().expect("an observation").etag = Some(etag.to_owned());
        self
    }

    /// Sets the entity tag of the last change.
    fn answered_with(mut self, etag: &str) -> Self {
        self.0.changes.last_mut().expect("a change").etag = Some(etag.to_owned());
        self
    }

    /// Makes one operation of the last two changes.
    fn joined_to_one_operation(mut self) -> Self {
        let [.., first, second] = &mut self.0.changes[..] else { panic!("two changes") };
        second.operation = first.operation;
        self
    }

    fn found(self) -> Vec<String> {
        violations(&self.0)
    }
}

use Outcome::{Acknowledged, Refused, Unknown};

fn written() -> HistoryBuilder {
    HistoryBuilder::default().change(Some(1), (10, 20), Acknowledged)
}

#[test]
fn correct_histories_have_no_violation() {
    let concurrent = written().change(Some(2), (30, 50), Acknowledged).see(Some(1), (31, 32)).see(Some(2), (33, 34));
    let lost = written().change(Some(2), (30, 40), Unknown).see(Some(1), (50, 60)).see(Some(1), (70, 80));
    let done = written().change(Some(2), (30, 40), Unknown).see(Some(2), (50, 60));
    let refused = written().change(Some(2), (30, 40), Refused).see(Some(1), (50, 60));
    let revoked = HistoryBuilder::default()
        .change_of("token:t", ALLOWED, (0, 5), Acknowledged)
        .see_of("token:t", Seen::Value(ALLOWED), (6, 7))
        .change_of("token:t", DENIED, (10, 20), Acknowledged)
        .see_of("token:t", Seen::Value(ALLOWED), (9, 25))
        .see_of("token:t", Seen::Value(DENIED), (21, 22));
    let overtaken = written().change(Some(2), (30, 40), Unknown).change(Some(3), (50, 60), Acknowledged);
    let moved = written()
        .change(None, (30, 40), Unknown)
        .change_of("file:b", Some(1), (30, 40), Unknown)
        .joined_to_one_operation()
        .see(None, (50, 60))
        .see_of("file:b", Seen::Value(Some(1)), (61, 70));
    let onto_its_copy = written()
        .change_of("file:b", Some(1), (22, 25), Acknowledged)
        .change(None, (30, 40), Unknown)
        .change_of("file:b", Some(1), (30, 40), Unknown)
        .joined_to_one_operation()
        .see(Some(1), (50, 60))
        .see_of("file:b", Seen::Value(Some(1)), (61, 70));
    let tagged = written().answered_with("x").see(Some(1), (21, 22)).tagged("x");
    let overtaken = overtaken.see(Some(3), (61, 62));
    for history in [concurrent, lost, done, refused, revoked, overtaken, moved, onto_its_copy, tagged] {
        assert_eq!(history.found(), Vec::<String>::new());
    }
}

fn assert_each_is_found<const N: usize>(cases: [(&str, HistoryBuilder); N]) {
    for (kind, history) in cases {
        let found = history.found();
        assert_eq!(found.len(), 1, "{kind}: {found:?}");
    }
}

#[test]
fn each_violation_of_permissions_and_locks_is_found() {
    let cases = [
        (
            "revoked token is accepted",
            HistoryBuilder::default()
                .change_of("token:t", ALLOWED, (0, 5), Acknowledged)
                .change_of("token:t", DENIED, (10, 20), Acknowledged)
                .see_of("token:t", Seen::Value(ALLOWED), (21, 22)),
        ),
        (
            "live token is refused",
            HistoryBuilder::default().change_of("token:t", ALLOWED, (0, 5), Acknowledged).see_of(
                "token:t",
                Seen::Value(DENIED),
                (21, 22),
            ),
        ),
        ("scope is left", HistoryBuilder::default().see_of("scope:/other", Seen::Value(ALLOWED), (1, 2))),
        (
            "lock is lost",
            HistoryBuilder::default()
                .change_of("lock:a", ALLOWED, (0, 1), Acknowledged)
                .change_of("lock:a", DENIED, (2, 3), Acknowledged)
                .see_of("lock:a", Seen::Value(ALLOWED), (4, 5)),
        ),
        (
            "lock stays after UNLOCK",
            HistoryBuilder::default()
                .change_of("lock:a", DENIED, (2, 3), Acknowledged)
                .change_of("lock:a", ALLOWED, (4, 5), Acknowledged)
                .see_of("lock:a", Seen::Value(DENIED), (6, 7)),
        ),
    ];
    assert_each_is_found(cases);
}

#[test]
fn each_violation_of_content_is_found() {
    let cases = [
        ("acknowledged content is gone", written().see(None, (30, 40))),
        ("older content is back", written().change(Some(2), (30, 40), Acknowledged).see(Some(1), (50, 60))),
        (
            "content was seen and is gone",
            written().change(Some(2), (30, 90), Unknown).see(Some(2), (91, 92)).see(Some(1), (93, 94)),
        ),
        ("refused content is there", written().change(Some(2), (30, 40), Refused).see(Some(2), (50, 60))),
        (
            "unfinished content takes the place of finished",
            written().change(Some(2), (30, 40), Unknown).change(Some(3), (50, 60), Acknowledged).see(Some(2), (70, 80)),
        ),
        ("removed file is back", written().change(None, (30, 40), Acknowledged).see(Some(1), (50, 60))),
        ("content comes before it was sent", written().change(Some(2), (50, 60), Acknowledged).see(Some(2), (30, 40))),
        ("nobody has written it", written().see(Some(9), (30, 40))),
        ("content is torn", written().see_of("file:a", Seen::Damaged("a mix".to_owned()), (30, 40))),
        (
            "one tag for two contents",
            written()
                .see(Some(1), (30, 40))
                .tagged("x")
                .change(Some(2), (50, 60), Acknowledged)
                .see(Some(2), (61, 62))
                .tagged("x"),
        ),
        ("tag changes without the content", written().answered_with("x").see(Some(1), (21, 22)).tagged("y")),
        (
            "move by half",
            written()
                .change(None, (30, 40), Unknown)
                .change_of("file:b", Some(1), (30, 40), Unknown)
                .joined_to_one_operation()
                .see(None, (50, 60))
                .see_of("file:b", Seen::Value(None), (61, 70)),
        ),
    ];
    assert_each_is_found(cases);
}
