//! Clients over WebDAV: each writes files of its own, over HTTP/1.1 or HTTP/2, and others read them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::content::{content, recognize};
use crate::history::{Change, Outcome, Seen, Value};
use crate::outcome::{Answer, send};
use crate::random::Random;
use crate::recorder::Recorder;
use crate::support::DavClient;

/// Number of files of each client that writes.
pub(crate) const FILES_PER_WRITER: usize = 6;

/// A client that writes, copies, moves and deletes its files.
pub(crate) struct WebdavWriter {
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) client: DavClient,
    pub(crate) directory: String,
    pub(crate) random: Random,
    /// What each file holds; missing while that is not known.
    pub(crate) known: HashMap<String, Value>,
}

/// Returns the register of a file.
pub(crate) fn file_register(path: &str) -> String {
    format!("file:{path}")
}

impl WebdavWriter {
    pub(crate) async fn run(mut self, stop: Arc<AtomicBool>) {
        for number in 0..FILES_PER_WRITER {
            self.known.insert(self.path(number), None);
        }
        while !stop.load(Ordering::Relaxed) {
            let path = self.random_path();
            if !self.known.contains_key(&path) {
                self.read(&path).await;
                continue;
            }
            match self.random.below(100) {
                0..45 => self.put(&path).await,
                45..65 => self.read(&path).await,
                65..75 => self.transfer("MOVE", &path).await,
                75..85 => self.transfer("COPY", &path).await,
                85..92 => self.delete(&path).await,
                _ => self.list().await,
            }
        }
    }

    fn path(&self, number: usize) -> String {
        format!("{}/f{number}", self.directory)
    }

    fn random_path(&mut self) -> String {
        let number = self.random.below(FILES_PER_WRITER);
        self.path(number)
    }

    async fn put(&mut self, path: &str) {
        let number = self.recorder.new_number();
        let body = content(number, self.random.length());
        let answer = send(&self.recorder, "PUT", &self.client, ("PUT", &url(path)), &[], body).await;
        self.changed(&answer, number, &[(path, Some(number))]);
    }

    async fn delete(&mut self, path: &str) {
        if self.known[path].is_none() {
            return;
        }
        let answer = send(&self.recorder, "DELETE", &self.client, ("DELETE", &url(path)), &[], "").await;
        self.changed(&answer, self.recorder.new_number(), &[(path, None)]);
    }

    async fn transfer(&mut self, method: &'static str, from: &str) {
        let to = self.random_path();
        let (Some(value @ Some(_)), true) = (self.known[from].map(Some), self.known.contains_key(&to) && to != from)
        else {
            return;
        };
        let headers = [("destination", &*url(&to))];
        let answer = send(&self.recorder, method, &self.client, (method, &url(from)), &headers, "").await;
        let changes: &[_] = if method == "MOVE" { &[(from, None), (&to, value)] } else { &[(&to, value)] };
        self.changed(&answer, self.recorder.new_number(), changes);
    }

    /// Records the changes of one operation.
    fn changed(&mut self, answer: &Answer, operation: u64, changes: &[(&str, Value)]) {
        for (path, value) in changes {
            let (span, outcome) = (answer.span, answer.outcome);
            // The answer of a PUT alone has the tag of what it has written.
            let etag = answer.etag().filter(|_| outcome == Outcome::Acknowledged && *value == Some(operation));
            self.recorder.change(Change {
                register: file_register(path),
                operation,
                value: *value,
                span,
                outcome,
                etag,
            });
            match outcome {
                Outcome::Acknowledged => self.known.insert((*path).to_owned(), *value),
                Outcome::Refused => None,
                Outcome::Unknown => self.known.remove(*path),
            };
        }
        check_authorized(&self.recorder, answer, &self.directory);
    }

    async fn read(&mut self, path: &str) {
        if let Some(Seen::Value(value)) = read_file(&self.recorder, &self.client, path).await {
            self.known.insert(path.to_owned(), value);
        }
    }

    async fn list(&mut self) {
        let path = url(&format!("{}/", self.directory));
        let answer = send(&self.recorder, "PROPFIND", &self.client, ("PROPFIND", &path), &[("depth", "1")], "").await;
        let Some(response) = answer.response.as_ref().filter(|response| response.status == 207) else { return };
        let listed = response.hrefs(&path);
        for (file, value) in &self.known {
            let is_listed = listed.iter().any(|href| *href == url(file));
            if is_listed != value.is_some() {
                self.recorder.fault(format!("{file} should hold {value:?}, and a listing shows {listed:?}"));
            }
        }
    }
}

/// A client that reads what all others write.
pub(crate) async fn read_at_random(
    recorder: Arc<Recorder>,
    client: DavClient,
    directories: Vec<String>,
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    while !stop.load(Ordering::Relaxed) {
        let directory = &directories[random.below(directories.len())];
        read_file(&recorder, &client, &format!("{directory}/f{}", random.below(FILES_PER_WRITER))).await;
    }
}

/// Reads a file and records what it holds; `None` where no answer tells.
pub(crate) async fn read_file(recorder: &Recorder, client: &DavClient, path: &str) -> Option<Seen> {
    let answer = send(recorder, "GET", client, ("GET", &url(path)), &[], "").await;
    check_authorized(recorder, &answer, path);
    let seen = match answer.status() {
        200 => recognize(&answer.response.as_ref()?.body),
        404 => Seen::Value(None),
        _ => return None,
    };
    recorder.observe(&file_register(path), seen.clone(), answer.span, answer.etag());
    Some(seen)
}

/// The tokens of these clients are never revoked.
fn check_authorized(recorder: &Recorder, answer: &Answer, whose: &str) {
    if [401, 403].contains(&answer.status()) {
        recorder.fault(format!("a live token was refused with {} at {whose}", answer.status()));
    }
}

pub(crate) fn url(path: &str) -> String {
    format!("/dav{path}")
}
