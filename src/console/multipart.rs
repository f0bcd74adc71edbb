//! Forms with files (`multipart/form-data`, RFC 7578), read as they come: what a part holds is handed on in
//! pieces, and never held whole. The reader that axum brings takes in all that the sender has ready before it hands a
//! piece on, without bound; this one holds the head of a part, or a block.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use memchr::memmem;

use super::fault::{Fault, Result};
use crate::http::RequestBodyError;

/// How long a browser may send nothing of an upload.
const SILENCE: Duration = Duration::from_secs(300);
/// The longest head of a part.
const HEAD: usize = 8 * 1024;
/// The longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY: usize = 70;

/// What the head of a part says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    /// The name of the field.
    pub(super) name: String,
    /// The name of the file, where it is one; empty where none was chosen.
    pub(super) file: Option<String>,
}

/// A form that is being read.
pub(super) struct Multipart {
    body: Body,
    sieve: Sieve,
}

impl Multipart {
    /// Begins to read a form whose parts stand between lines with this boundary.
    pub(super) fn new(boundary: &str, body: Body) -> Self {
        Self { body, sieve: Sieve::new(boundary) }
    }

    /// Returns the boundary that the head of a form names.
    ///
    /// # Errors
    /// [`Fault::Form`] for what is no such form.
    pub(super) fn boundary(headers: &HeaderMap) -> Result<String> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let boundary = boundary(kind).ok_or_else(|| Fault::Form("a form with files was expected".to_owned()))?;
        Ok(boundary.to_owned())
    }

    /// Returns the next part; what is left of the one before is passed over.
    ///
    /// # Errors
    /// [`Fault::Form`] when the form is cut or is none.
    pub(super) async fn part(&mut self) -> Result<Option<Part>> {
        loop {
            match self.sieve.next()? {
                Step::Part(part) => return Ok(Some(part)),
                Step::Over => return Ok(None),
                Step::Content(_) | Step::End => {}
                Step::More => self.more().await?,
            }
        }
    }

    /// Returns the next piece of what the part holds; `None` at its end.
    ///
    /// # Errors
    /// As [`Multipart::part`].
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.sieve.next()? {
                Step::Content(piece) => return Ok(Some(piece)),
                Step::Part(_) | Step::End | Step::Over => return Ok(None),
                Step::More => self.more().await?,
            }
        }
    }

    /// Returns what the part holds as text, which is refused where it is longer than `most` bytes.
    ///
    /// # Errors
    /// As [`Multipart::part`].
    pub(super) async fn text(&mut self, most: usize) -> Result<String> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece().await? {
            text.extend_from_slice(&piece);
            if text.len() > most {
                return Err(broken());
            }
        }
        String::from_utf8(text).map_err(|_| broken())
    }

    async fn more(&mut self) -> Result<()> {
        let data = piece(&mut self.body).await?.ok_or_else(cut)?;
        self.sieve.push(&data);
        Ok(())
    }
}

/// Returns the next piece of what a browser sends; `None` at its end.
///
/// # Errors
/// [`Fault::Form`] when it is cut; [`Fault::TooSlow`].
pub(super) async fn piece(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| Fault::TooSlow)?;
        let unread = |error: axum::Error| if RequestBodyError::is_too_slow(&error) { Fault::TooSlow } else { cut() };
        match frame.transpose().map_err(unread)?.map(|frame| frame.into_data()) {
            None => return Ok(None),
            Some(Ok(piece)) => return Ok(Some(piece)),
            // Trailers.
            Some(Err(_)) => {}
        }
    }
}

/// Says that not all came.
fn cut() -> Fault {
    Fault::Form("The upload was cut.".to_owned())
}

fn broken() -> Fault {
    Fault::Form("This form can’t be read.".to_owned())
}

/// Reads the boundary that a media type names.
fn boundary(kind: &str) -> Option<&str> {
    let (essence, parameters) = kind.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    })?;
    (1..=BOUNDARY).contains(&boundary.len()).then_some(boundary)
}

/// Finds parts in what is pushed into it; no I/O.
struct Sieve {
    /// What stands in front of each part but the head's own end: line break, two hyphens, boundary.
    delimiter: Vec<u8>,
    held: BytesMut,
    at: At,
}

/// Where a sieve is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Preamble,
    Delimiter,
    Head,
    Content,
    Over,
}

/// What a sieve found.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing yet.
    More,
    /// A part begins.
    Part(Part),
    /// A piece of what it holds.
    Content(Bytes),
    /// It ends.
    End,
    /// So does the form.
    Over,
}

impl Sieve {
    fn new(boundary: &str) -> Self {
        // The first delimiter has no line before it.
        let held = BytesMut::from(&b"\r\n"[..]);
        Self { delimiter: format!("\r\n--{boundary}").into_bytes(), held, at: At::Preamble }
    }

    fn push(&mut self, data: &[u8]) {
        if self.at != At::Over {
            self.held.extend_from_slice(data);
        }
    }

    fn next(&mut self) -> Result<Step> {
        loop {
            let step = match self.at {
                At::Preamble => self.preamble(),
                At::Delimiter => self.delimiter()?,
                At::Head => self.head()?,
                At::Content => Some(self.content()),
                At::Over => Some(Step::Over),
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    fn preamble(&mut self) -> Option<Step> {
        match memmem::find(&self.held, &self.delimiter) {
            Some(found) => {
                let _ = self.held.split_to(found + self.delimiter.len());
                self.at = At::Delimiter;
                None
            }
            None => {
                let _ = self.held.split_to(self.certain());
                Some(Step::More)
            }
        }
    }

    /// Reads what follows a delimiter: the line's end before another part, two hyphens at the form's end.
    fn delimiter(&mut self) -> Result<Option<Step>> {
        let Some((next, _)) = self.held.split_at_checked(2) else { return Ok(Some(Step::More)) };
        self.at = match next {
            b"\r\n" => At::Head,
            b"--" => At::Over,
            _ => return Err(broken()),
        };
        let _ = self.held.split_to(2);
        Ok(None)
    }

    fn head(&mut self) -> Result<Option<Step>> {
        match memmem::find(&self.held, b"\r\n\r\n") {
            Some(end) if end <= HEAD => {
                let head = self.held.split_to(end + 4);
                self.at = At::Content;
                Ok(Some(Step::Part(part(&head[..end]).ok_or_else(broken)?)))
            }
            None if self.held.len() <= HEAD + 4 => Ok(Some(Step::More)),
            Some(_) | None => Err(broken()),
        }
    }

    fn content(&mut self) -> Step {
        match memmem::find(&self.held, &self.delimiter) {
            Some(0) => {
                let _ = self.held.split_to(self.delimiter.len());
                self.at = At::Delimiter;
                Step::End
            }
            Some(found) => Step::Content(self.held.split_to(found).freeze()),
            None if self.certain() > 0 => Step::Content(self.held.split_to(self.certain()).freeze()),
            None => Step::More,
        }
    }

    /// Returns how much is held that no delimiter begins in, which is not there whole.
    fn certain(&self) -> usize {
        self.held.len().saturating_sub(self.delimiter.len() - 1)
    }
}

/// Reads the head of a part.
fn part(head: &[u8]) -> Option<Part> {
    let head = std::str::from_utf8(head).ok()?;
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, mut rest) = disposition.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut file) = (None, None);
    while let Some((key, value)) = rest.trim_start().split_once("=\"") {
        let (value, after) = value.split_once('"')?;
        match key {
            "name" => name = Some(unescaped(value)),
            "filename" => file = Some(unescaped(value)),
            _ => {}
        }
        rest = after.trim_start().strip_prefix(';').unwrap_or_default();
    }
    Some(Part { name: name?, file })
}

/// Undoes what browsers do to names: they write quotes and line breaks percent-encoded, and nothing else (HTML
/// standard, section 4.10.21.8).
fn unescaped(text: &str) -> String {
    text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=----x42";

    fn form(parts: &[(&str, &str)]) -> Vec<u8> {
        let parts = parts.iter().map(|(head, content)| format!("------x42\r\n{head}\r\n\r\n{content}\r\n"));
        format!("{}------x42--\r\n", parts.collect::<String>()).into_bytes()
    }

    /// Reads a form that comes in blocks of a size: each part, and what it holds.
    fn read(form: &[u8], block: usize) -> Result<Vec<(Part, Vec<u8>)>> {
        let mut sieve = Sieve::new(boundary(KIND).expect("a boundary"));
        let (mut blocks, mut parts) = (form.chunks(block), Vec::new());
        loop {
            match sieve.next()? {
                Step::More => sieve.push(blocks.next().ok_or_else(cut)?),
                Step::Part(part) => parts.push((part, Vec::new())),
                Step::Content(piece) => parts.last_mut().expect("a part").1.extend_from_slice(&piece),
                Step::End => {}
                Step::Over => return Ok(parts),
            }
            assert!(sieve.held.len() < block + HEAD + 100, "what came is not heaped up");
        }
    }

    fn file(name: &str) -> Part {
        Part { name: "file".to_owned(), file: Some(name.to_owned()) }
    }

    #[test]
    fn parts_are_the_same_however_a_form_is_cut_into_blocks() {
        let almost = "\r\n------x4\r\n--\r------x42 \r\n\r\n------x4";
        let form = form(&[
            ("Content-Disposition: form-data; name=\"csrf\"", "secret"),
            ("content-disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\nContent-Type: text/plain", almost),
            ("Content-Disposition: form-data; name=\"file\"; filename=\"\"", ""),
        ]);
        let csrf = Part { name: "csrf".to_owned(), file: None };
        let expected =
            vec![(csrf, b"secret".to_vec()), (file("a b.txt"), almost.as_bytes().to_vec()), (file(""), Vec::new())];
        for block in 1..=form.len() {
            assert_eq!(read(&form, block).expect("read"), expected, "in blocks of {block}");
        }
        let early: Vec<u8> = [b"a preamble\r\n--\r\n".as_slice(), &form].concat();
        assert_eq!(read(&early, 7).expect("read"), expected);
    }

    #[test]
    fn what_is_cut_or_malformed_is_refused_and_never_taken_for_a_whole() {
        let whole = form(&[("Content-Disposition: form-data; name=\"a\"", "b")]);
        for end in 0..whole.len() - 2 {
            assert!(read(&whole[..end], 8).is_err(), "{:?}", String::from_utf8_lossy(&whole[..end]));
        }
        let long = "x".repeat(HEAD);
        for head in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: attachment; name=\"a\"",
            "Content-Disposition: form-data",
            &long,
        ] {
            assert!(read(&form(&[(head, "b")]), 1000).is_err(), "{head}");
        }
        assert!(read(b"------x42garbage", 100).is_err());
    }

    #[test]
    fn names_are_read_as_browsers_write_them() {
        let cases = [
            ("form-data; name=\"file\"; filename=\"caf\u{e9} 100%.txt\"", "caf\u{e9} 100%.txt"),
            ("form-data;name=\"file\";filename=\"a%22b%0D%0A;c=d\"", "a\"b\r\n;c=d"),
            ("form-data; name=\"file\"; filename=\"a; name=x.txt\"", "a; name=x.txt"),
        ];
        for (disposition, name) in cases {
            assert_eq!(
                part(format!("Content-Disposition: {disposition}").as_bytes()),
                Some(file(name)),
                "{disposition}"
            );
        }
    }

    #[test]
    fn boundaries_are_bounded() {
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for kind in ["", "text/plain; boundary=x", "multipart/form-data", "multipart/form-data; boundary=", &long] {
            assert_eq!(boundary(kind), None, "{kind}");
        }
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), Some("a b"));
    }
}
