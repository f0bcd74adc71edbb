//! GET on a folder: a plain page of what is in it, for people: sorted, folders first, unless there is more of it than
//! is kept in memory for that.

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::call::Call;
use super::error::Result;
use super::verb::Verb;
use super::{address, date, xml};
use crate::http::{BlockProducer, BodyError, ResponseBody, empty, full, streamed_body};
use crate::tree::{DirectoryListing, Entry};

/// A block is handed over once it is this long.
const BLOCK: usize = 64 * 1024;
/// How many entries are sorted; a longer listing comes as the file system has it.
const SORTED: usize = 4096;
/// A page made here may lead to downloads, and do nothing else.
const POLICY: &str = "sandbox allow-downloads; default-src 'none'";

/// Answers GET and HEAD on a folder; may block.
///
/// # Errors
/// What the tree says.
pub(super) fn answer(call: &Call) -> Result<Response<ResponseBody>> {
    let mut listing = call.view.list(&call.path, true)?;
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if call.verb == Verb::Head {
        return Ok(response);
    }
    let mut ahead = listing.by_ref().take(SORTED).collect::<crate::tree::Result<Vec<_>>>()?;
    if ahead.len() < SORTED {
        ahead.sort_by_cached_key(|entry| (!entry.is_directory(), entry.name.to_ascii_lowercase(), entry.name.clone()));
    }
    let base = call.mount.href(&call.path, true);
    let mut page = Page { base, ahead: ahead.into_iter(), listing: Some(listing) };
    let first = page.block(head(call))?;
    *response.body_mut() = match page.listing {
        None => full(first),
        Some(_) => streamed_body(call.view.session(), first, page),
    };
    Ok(response)
}

fn head(call: &Call) -> String {
    let mut name = format!("/{}", call.mount.title());
    if let Some(below) = call.path.strip_prefix(call.mount.root()).filter(|below| !below.is_root()) {
        name += &below.to_string();
    }
    let mut out = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
        <meta name=\"viewport\" content=\"width=device-width\"><title>",
    );
    xml::escape(&name, &mut out);
    out += "</title></head>\n<body><h1>";
    xml::escape(&name, &mut out);
    out += "</h1>\n<table>\n<tr><th align=\"left\">Name</th><th align=\"right\">Size</th><th align=\"left\">Changed</th></tr>\n";
    if let Some(parent) = call.path.parent().filter(|_| !call.is_root()) {
        out += &format!("<tr><td><a href=\"{}\">../</a></td><td></td><td></td></tr>\n", call.mount.href(&parent, true));
    }
    out
}

struct Page {
    base: String,
    ahead: std::vec::IntoIter<Entry>,
    listing: Option<DirectoryListing>,
}

impl Page {
    fn block(&mut self, mut out: String) -> crate::tree::Result<Bytes> {
        while let Some(listing) = self.listing.as_mut().filter(|_| out.len() < BLOCK) {
            match self.ahead.next().map(Ok).or_else(|| listing.next()) {
                Some(entry) => self.row(&entry?, &mut out),
                None => {
                    out += "</table></body></html>\n";
                    self.listing = None;
                }
            }
        }
        Ok(out.into())
    }

    fn row(&self, entry: &Entry, out: &mut String) {
        let slash = if entry.is_directory() { "/" } else { "" };
        out.push_str("<tr><td><a href=\"");
        out.push_str(&self.base);
        address::encode(&entry.name, out);
        out.push_str(slash);
        out.push_str("\">");
        if let Some(name) = entry.valid_name() {
            xml::escape(&name.to_string(), out);
        }
        out.push_str(slash);
        let size = if entry.is_directory() { String::new() } else { size(entry.size) };
        let changed = date::internet_date(entry.modified);
        out.push_str(&format!("</a></td><td align=\"right\">{size}</td><td>{changed}</td></tr>\n"));
    }
}

/// Writes a number of bytes for people: the largest unit that it holds one of, with a decimal.
fn size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        None => format!("{bytes} B"),
        Some((size, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

impl BlockProducer for Page {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.listing.is_none() {
            return Ok(None);
        }
        self.block(String::new()).map(Some).map_err(|error| BodyError(error.to_string()))
    }

    fn remaining_bytes(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_for_people() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "16777215.9 TiB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
    }
}
