//! Reports about programs that search the text of a PROPFIND response instead of parsing its XML.

use super::start_with_alice;

/// KOReader finds books by text patterns: an entry is one element with a prefix, a file one with an empty
/// `resourcetype`, a folder one with `collection`, and names are percent-encoded.
#[tokio::test(flavor = "multi_thread")]
async fn listing_matches_the_regular_expressions_of_an_e_book_reader() {
    let (gateway, dav) = start_with_alice().await;
    gateway.create_host_directory("/books/sub f");
    gateway.write_host_file("/books/b ook+1.epub", "x".repeat(321));
    let body = "<?xml version=\"1.0\"?><a:propfind xmlns:a='DAV:'><a:prop><a:resourcetype/><a:getcontentlength/>\
                <a:getlastmodified/></a:prop></a:propfind>";
    for (path, headers) in [("/dav/books/", &[("content-type", "application/xml")][..]), ("/dav/books", &[])] {
        let headers = [headers, &[("depth", "1")]].concat();
        let listing = dav.send("PROPFIND", path, &headers, body).await.text();
        let responses: Vec<&str> = listing.split("<D:response>").skip(1).collect();
        assert_eq!(responses.len(), 3, "{listing}");
        assert_eq!(listing.matches("</D:response>").count(), 3, "without attributes, each closed: {listing}");
        let is_folder = |response: &str| response.contains("<D:collection/>");
        let is_file = |response: &str| {
            response.contains("<D:resourcetype/>") || response.contains("<D:resourcetype></D:resourcetype>")
        };
        let files: Vec<&&str> = responses.iter().filter(|response| is_file(response)).collect();
        assert_eq!((files.len(), responses.iter().filter(|response| is_folder(response)).count()), (1, 2), "{listing}");
        assert!(files[0].contains("<D:getcontentlength>321</D:getcontentlength>"), "{listing}");
        assert!(files[0].contains("/b%20ook%2B1.epub</D:href>"), "{listing}");
        assert!(responses.iter().all(|response| response.matches("<D:href>").count() == 1), "one address each");
        assert!(responses.iter().any(|response| response.contains("/sub%20f/</D:href>")), "{listing}");
    }
}
