//! GET on a directory: an HTML page that lists its members for people, sorted, directories first, unless there are too
//! many to sort in memory.

use bytes::Bytes;
use http::{HeaderValue, Response, header};

use super::error::Result;
use super::method::DavMethod;
use super::request_context::RequestContext;
use super::{client_root, date, xml};
use crate::http::{BlockProducer, BodyError, ResponseBody, empty, full, streamed_body};
use crate::tree::{DirectoryListing, Entry};

/// Size from which a block is sent.
const PAGE_BLOCK_BYTES: usize = 64 * 1024;
/// Maximum number of entries that are sorted; a longer listing is in the order of the file system.
const MAX_SORTED_ENTRIES: usize = 4096;
/// Policy of the page: it may link to downloads, and do nothing else.
// Whoever may upload chooses the file names: without scripts, an escaping bug in the page stays harmless.
const PAGE_SECURITY_POLICY: &str = "sandbox allow-downloads; default-src 'none'";

/// Handles GET and HEAD on a directory; may block.
///
/// # Errors
/// The errors of the tree.
pub(super) fn handle(context: &RequestContext) -> Result<Response<ResponseBody>> {
    let mut listing = context.view.list(&context.path, true)?;
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_SECURITY_POLICY));
    // After `list`, so that HEAD has the status of GET.
    if context.method == DavMethod::Head {
        return Ok(response);
    }
    let mut prefetched = listing.by_ref().take(MAX_SORTED_ENTRIES).collect::<crate::tree::Result<Vec<_>>>()?;
    // At the maximum there may be more entries: a page that is sorted in parts would mislead.
    if prefetched.len() < MAX_SORTED_ENTRIES {
        prefetched
            .sort_by_cached_key(|entry| (!entry.is_directory(), entry.name.to_ascii_lowercase(), entry.name.clone()));
    }
    let base = context.client_root.href(&context.path, true);
    let mut page = DirectoryIndexPage { base_href: base, prefetched: prefetched.into_iter(), listing: Some(listing) };
    let first = page.fill_block(page_head(context))?;
    *response.body_mut() = match page.listing {
        // The page is complete: it gets a Content-Length, and needs no task.
        None => full(first),
        Some(_) => streamed_body(context.view.session(), first, page),
    };
    Ok(response)
}

fn page_head(context: &RequestContext) -> String {
    let mut name = format!("/{}", context.client_root.display_name());
    if let Some(below) = context.path.strip_prefix(context.client_root.root()).filter(|below| !below.is_root()) {
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
    // No link above the root of the client.
    if let Some(parent) = context.path.parent().filter(|_| !context.is_root()) {
        out += &format!(
            "<tr><td><a href=\"{}\">../</a></td><td></td><td></td></tr>\n",
            context.client_root.href(&parent, true)
        );
    }
    out
}

struct DirectoryIndexPage {
    base_href: String,
    prefetched: std::vec::IntoIter<Entry>,
    listing: Option<DirectoryListing>,
}

impl DirectoryIndexPage {
    fn fill_block(&mut self, mut out: String) -> crate::tree::Result<Bytes> {
        while let Some(listing) = self.listing.as_mut().filter(|_| out.len() < PAGE_BLOCK_BYTES) {
            match self.prefetched.next().map(Ok).or_else(|| listing.next()) {
                Some(entry) => self.write_row(&entry?, &mut out),
                None => {
                    out += "</table></body></html>\n";
                    self.listing = None;
                }
            }
        }
        Ok(out.into())
    }

    fn write_row(&self, entry: &Entry, out: &mut String) {
        let slash = if entry.is_directory() { "/" } else { "" };
        out.push_str("<tr><td><a href=\"");
        out.push_str(&self.base_href);
        // From bytes: a name need not be UTF-8.
        client_root::percent_encode(&entry.name, out);
        out.push_str(slash);
        out.push_str("\">");
        if let Some(name) = entry.valid_name() {
            xml::escape(&name.to_string(), out);
        }
        out.push_str(slash);
        let size = if entry.is_directory() { String::new() } else { human_readable_size(entry.size) };
        let changed = date::format_rfc3339(entry.modified);
        out.push_str(&format!("</a></td><td align=\"right\">{size}</td><td>{changed}</td></tr>\n"));
    }
}

/// Formats a number of bytes for people: in the largest unit of which it is at least one, with one decimal.
fn human_readable_size(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        None => format!("{bytes} B"),
        Some((size, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

impl BlockProducer for DirectoryIndexPage {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.listing.is_none() {
            return Ok(None);
        }
        self.fill_block(String::new()).map(Some).map_err(|error| BodyError(error.to_string()))
    }

    fn remaining_bytes(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_human_readable() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (u64::MAX, "16777215.9 TiB")];
        for (bytes, text) in cases {
            assert_eq!(human_readable_size(bytes), text);
        }
    }
}
