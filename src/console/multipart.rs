//! A streaming parser of forms with files (`multipart/form-data`, RFC 7578): content is passed on in chunks and never
//! held whole. The parser that axum brings buffers without bound whatever the sender has ready; this one holds the
//! headers of a part, or a block.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use memchr::memmem;

use super::error::{ConsoleError, Result};
use crate::http::RequestBodyError;

/// Time without data after which an upload is aborted.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Maximum size of the headers of a part.
const PART_HEADER_BYTES: usize = 8 * 1024;
/// Maximum length of a boundary (RFC 2046 section 5.1.1).
const BOUNDARY_MAX_BYTES: usize = 70;

/// The headers of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MultipartPart {
    /// The name of the field.
    pub(super) field_name: String,
    /// The name of the file, for a part with a file; empty if the user chose none.
    pub(super) file_name: Option<String>,
}

/// A form under parsing.
pub(super) struct MultipartForm {
    body: Body,
    parser: MultipartParser,
}

impl MultipartForm {
    /// Starts to parse a body whose parts are separated by this boundary.
    pub(super) fn new(boundary: &str, body: Body) -> Self {
        Self { body, parser: MultipartParser::new(boundary) }
    }

    /// Returns the boundary in the `Content-Type` header.
    ///
    /// # Errors
    /// [`ConsoleError::InvalidForm`] for another media type, or a boundary that is missing or too long.
    pub(super) fn boundary_from_headers(headers: &HeaderMap) -> Result<String> {
        let content_type =
            headers.get(header::CONTENT_TYPE).and_then(|content_type| content_type.to_str().ok()).unwrap_or_default();
        let boundary = parse_boundary(content_type)
            .ok_or_else(|| ConsoleError::InvalidForm("expected a form of type multipart/form-data".to_owned()))?;
        Ok(boundary.to_owned())
    }

    /// Returns the next part; unread content of the previous one is skipped.
    ///
    /// # Errors
    /// [`ConsoleError::InvalidForm`] when the body is truncated or malformed; [`ConsoleError::TooSlow`].
    pub(super) async fn next_part(&mut self) -> Result<Option<MultipartPart>> {
        loop {
            match self.parser.next_event()? {
                MultipartEvent::Part(part) => return Ok(Some(part)),
                MultipartEvent::FormEnd => return Ok(None),
                MultipartEvent::Chunk(_) | MultipartEvent::PartEnd => {}
                MultipartEvent::NeedsInput => self.read_more().await?,
            }
        }
    }

    /// Returns the next chunk of the part's content; `None` at its end.
    ///
    /// # Errors
    /// As [`MultipartForm::next_part`].
    pub(super) async fn read_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.parser.next_event()? {
                MultipartEvent::Chunk(chunk) => return Ok(Some(chunk)),
                MultipartEvent::Part(_) | MultipartEvent::PartEnd | MultipartEvent::FormEnd => return Ok(None),
                MultipartEvent::NeedsInput => self.read_more().await?,
            }
        }
    }

    /// Returns the part's content as text of at most `max_bytes` bytes.
    ///
    /// # Errors
    /// As [`MultipartForm::next_part`].
    pub(super) async fn read_text(&mut self, max_bytes: usize) -> Result<String> {
        let mut text = Vec::new();
        while let Some(chunk) = self.read_chunk().await? {
            text.extend_from_slice(&chunk);
            // Checked for each chunk: the sender decides how long the field is.
            if text.len() > max_bytes {
                return Err(malformed_form());
            }
        }
        String::from_utf8(text).map_err(|_| malformed_form())
    }

    async fn read_more(&mut self) -> Result<()> {
        let chunk = read_body_chunk(&mut self.body).await?.ok_or_else(truncated_upload)?;
        self.parser.push(&chunk);
        Ok(())
    }
}

/// Returns the next chunk of a request body; `None` at its end.
///
/// # Errors
/// [`ConsoleError::InvalidForm`] when the body is truncated; [`ConsoleError::TooSlow`].
pub(super) async fn read_body_chunk(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(BODY_READ_TIMEOUT, body.frame()).await.map_err(|_| ConsoleError::TooSlow)?;
        let read_error = |error: axum::Error| {
            if RequestBodyError::is_too_slow(&error) { ConsoleError::TooSlow } else { truncated_upload() }
        };
        match frame.transpose().map_err(read_error)?.map(|frame| frame.into_data()) {
            None => return Ok(None),
            Some(Ok(chunk)) => return Ok(Some(chunk)),
            // Trailers carry no content.
            Some(Err(_)) => {}
        }
    }
}

fn truncated_upload() -> ConsoleError {
    ConsoleError::InvalidForm("The upload was interrupted before its end. Upload again.".to_owned())
}

fn malformed_form() -> ConsoleError {
    ConsoleError::InvalidForm("The form data is malformed.".to_owned())
}

/// Parses the boundary parameter of a media type.
pub(super) fn parse_boundary(content_type: &str) -> Option<&str> {
    let (essence, parameters) = content_type.split_once(';')?;
    if !essence.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    })?;
    (1..=BOUNDARY_MAX_BYTES).contains(&boundary.len()).then_some(boundary)
}

/// The parser proper: data is pushed in, events are pulled out; no I/O.
pub(super) struct MultipartParser {
    /// Line break, two hyphens and the boundary: precedes each part, and the end of the form.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    state: MultipartParserState,
}

/// Position of the parser in the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MultipartParserState {
    Preamble,
    Delimiter,
    Headers,
    Content,
    Finished,
}

/// An event of the parser.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MultipartEvent {
    /// More data is needed.
    NeedsInput,
    /// A part starts.
    Part(MultipartPart),
    /// A chunk of the part's content.
    Chunk(Bytes),
    /// The part ends.
    PartEnd,
    /// The form ends.
    FormEnd,
}

impl MultipartParser {
    /// Creates a parser of a form with this boundary.
    pub(super) fn new(boundary: &str) -> Self {
        // The first delimiter may stand at the very start of the body, without a line break before it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self { delimiter: format!("\r\n--{boundary}").into_bytes(), buffer, state: MultipartParserState::Preamble }
    }

    /// Adds received bytes.
    pub(super) fn push(&mut self, chunk: &[u8]) {
        // An epilogue is ignored (RFC 2046 section 5.1.1), and must not fill the buffer.
        if self.state != MultipartParserState::Finished {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// Returns the next event.
    ///
    /// # Errors
    /// [`ConsoleError::InvalidForm`] when the form is malformed.
    pub(super) fn next_event(&mut self) -> Result<MultipartEvent> {
        loop {
            let event = match self.state {
                MultipartParserState::Preamble => self.parse_preamble(),
                MultipartParserState::Delimiter => self.parse_delimiter()?,
                MultipartParserState::Headers => self.parse_headers()?,
                MultipartParserState::Content => Some(self.parse_content()),
                MultipartParserState::Finished => Some(MultipartEvent::FormEnd),
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn parse_preamble(&mut self) -> Option<MultipartEvent> {
        match memmem::find(&self.buffer, &self.delimiter) {
            Some(index) => {
                let _ = self.buffer.split_to(index + self.delimiter.len());
                self.state = MultipartParserState::Delimiter;
                None
            }
            None => {
                // The preamble is discarded, but for bytes that may be the start of the first delimiter.
                let _ = self.buffer.split_to(self.len_before_delimiter());
                Some(MultipartEvent::NeedsInput)
            }
        }
    }

    /// Parses the two bytes after a delimiter: a line break before another part, two hyphens at the end of the form.
    fn parse_delimiter(&mut self) -> Result<Option<MultipartEvent>> {
        let Some((next, _)) = self.buffer.split_at_checked(2) else { return Ok(Some(MultipartEvent::NeedsInput)) };
        self.state = match next {
            b"\r\n" => MultipartParserState::Headers,
            b"--" => MultipartParserState::Finished,
            _ => return Err(malformed_form()),
        };
        let _ = self.buffer.split_to(2);
        Ok(None)
    }

    fn parse_headers(&mut self) -> Result<Option<MultipartEvent>> {
        match memmem::find(&self.buffer, b"\r\n\r\n") {
            // The bound holds for headers that arrive at once as well as for those that trickle in, so that both are
            // refused alike.
            Some(end) if end <= PART_HEADER_BYTES => {
                let headers = self.buffer.split_to(end + 4);
                self.state = MultipartParserState::Content;
                Ok(Some(MultipartEvent::Part(parse_part_headers(&headers[..end]).ok_or_else(malformed_form)?)))
            }
            None if self.buffer.len() <= PART_HEADER_BYTES + 4 => Ok(Some(MultipartEvent::NeedsInput)),
            Some(_) | None => Err(malformed_form()),
        }
    }

    fn parse_content(&mut self) -> MultipartEvent {
        match memmem::find(&self.buffer, &self.delimiter) {
            Some(0) => {
                let _ = self.buffer.split_to(self.delimiter.len());
                self.state = MultipartParserState::Delimiter;
                MultipartEvent::PartEnd
            }
            Some(index) => MultipartEvent::Chunk(self.buffer.split_to(index).freeze()),
            // Passed on at once, but for a tail that may turn out to be the start of a delimiter.
            None if self.len_before_delimiter() > 0 => {
                MultipartEvent::Chunk(self.buffer.split_to(self.len_before_delimiter()).freeze())
            }
            None => MultipartEvent::NeedsInput,
        }
    }

    /// Returns the number of buffered bytes that can't belong to a delimiter whose end has not arrived yet.
    fn len_before_delimiter(&self) -> usize {
        self.buffer.len().saturating_sub(self.delimiter.len() - 1)
    }
}

/// Parses the headers of a part.
fn parse_part_headers(headers: &[u8]) -> Option<MultipartPart> {
    let headers = std::str::from_utf8(headers).ok()?;
    let disposition = headers.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (disposition_type, mut rest) = disposition.split_once(';')?;
    if !disposition_type.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut file) = (None, None);
    while let Some((key, value)) = rest.trim_start().split_once("=\"") {
        let (value, after) = value.split_once('"')?;
        match key {
            "name" => name = Some(unescape_name(value)),
            "filename" => file = Some(unescape_name(value)),
            _ => {}
        }
        rest = after.trim_start().strip_prefix(';').unwrap_or_default();
    }
    Some(MultipartPart { field_name: name?, file_name: file })
}

/// Decodes a name as browsers encode it: only quotes and line breaks are percent-encoded (HTML standard, section
/// 4.10.21.8).
fn unescape_name(text: &str) -> String {
    text.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT_TYPE: &str = "multipart/form-data; boundary=----x42";

    fn encode_form(parts: &[(&str, &str)]) -> Vec<u8> {
        let parts = parts.iter().map(|(headers, content)| format!("------x42\r\n{headers}\r\n\r\n{content}\r\n"));
        format!("{}------x42--\r\n", parts.collect::<String>()).into_bytes()
    }

    /// Parses a form that arrives in blocks of a fixed size, and returns each part with its content.
    fn parse_in_blocks(form: &[u8], block: usize) -> Result<Vec<(MultipartPart, Vec<u8>)>> {
        let mut parser = MultipartParser::new(parse_boundary(CONTENT_TYPE).expect("a boundary"));
        let (mut blocks, mut parts) = (form.chunks(block), Vec::new());
        loop {
            match parser.next_event()? {
                MultipartEvent::NeedsInput => parser.push(blocks.next().ok_or_else(truncated_upload)?),
                MultipartEvent::Part(part) => parts.push((part, Vec::new())),
                MultipartEvent::Chunk(chunk) => parts.last_mut().expect("a part").1.extend_from_slice(&chunk),
                MultipartEvent::PartEnd => {}
                MultipartEvent::FormEnd => return Ok(parts),
            }
            assert!(parser.buffer.len() < block + PART_HEADER_BYTES + 100, "the parser buffers without bound");
        }
    }

    fn file_part(name: &str) -> MultipartPart {
        MultipartPart { field_name: "file".to_owned(), file_name: Some(name.to_owned()) }
    }

    #[test]
    fn form_parts_do_not_depend_on_block_boundaries() {
        let almost = "\r\n------x4\r\n--\r------x42 \r\n\r\n------x4";
        let form = encode_form(&[
            ("Content-Disposition: form-data; name=\"csrf\"", "secret"),
            ("content-disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\nContent-Type: text/plain", almost),
            ("Content-Disposition: form-data; name=\"file\"; filename=\"\"", ""),
        ]);
        let csrf = MultipartPart { field_name: "csrf".to_owned(), file_name: None };
        let expected = vec![
            (csrf, b"secret".to_vec()),
            (file_part("a b.txt"), almost.as_bytes().to_vec()),
            (file_part(""), Vec::new()),
        ];
        for block in 1..=form.len() {
            assert_eq!(parse_in_blocks(&form, block).expect("read"), expected, "in blocks of {block}");
        }
        let with_preamble: Vec<u8> = [b"a preamble\r\n--\r\n".as_slice(), &form].concat();
        assert_eq!(parse_in_blocks(&with_preamble, 7).expect("read"), expected);
    }

    #[test]
    fn truncated_or_malformed_form_is_refused() {
        let whole = encode_form(&[("Content-Disposition: form-data; name=\"a\"", "b")]);
        for end in 0..whole.len() - 2 {
            assert!(parse_in_blocks(&whole[..end], 8).is_err(), "{:?}", String::from_utf8_lossy(&whole[..end]));
        }
        let long = "x".repeat(PART_HEADER_BYTES);
        for headers in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: attachment; name=\"a\"",
            "Content-Disposition: form-data",
            &long,
        ] {
            assert!(parse_in_blocks(&encode_form(&[(headers, "b")]), 1000).is_err(), "{headers}");
        }
        assert!(parse_in_blocks(b"------x42garbage", 100).is_err());
    }

    #[test]
    fn names_are_unescaped_as_browsers_escape_them() {
        let cases = [
            ("form-data; name=\"file\"; filename=\"caf\u{e9} 100%.txt\"", "caf\u{e9} 100%.txt"),
            ("form-data;name=\"file\";filename=\"a%22b%0D%0A;c=d\"", "a\"b\r\n;c=d"),
            ("form-data; name=\"file\"; filename=\"a; name=x.txt\"", "a; name=x.txt"),
        ];
        for (disposition, name) in cases {
            assert_eq!(
                parse_part_headers(format!("Content-Disposition: {disposition}").as_bytes()),
                Some(file_part(name)),
                "{disposition}"
            );
        }
    }

    #[test]
    fn boundary_length_is_bounded() {
        let long = format!("multipart/form-data; boundary={}", "x".repeat(71));
        for content_type in
            ["", "text/plain; boundary=x", "multipart/form-data", "multipart/form-data; boundary=", &long]
        {
            assert_eq!(parse_boundary(content_type), None, "{content_type}");
        }
        assert_eq!(parse_boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), Some("a b"));
    }
}
