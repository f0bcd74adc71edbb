//! Properties of the parser of forms, for [`crate::fuzzing`].

use super::multipart::{MultipartEvent, MultipartParser, parse_boundary};

/// Forms: the blocks in which a form arrives don't matter, and its parts hold no more than has arrived.
pub(crate) fn multipart(data: &[u8]) {
    if let Ok(content_type) = std::str::from_utf8(data)
        && let Some(boundary) = parse_boundary(content_type)
    {
        assert!((1..=70).contains(&boundary.len()) && content_type.contains(boundary));
    }
    let Some((block_bytes, form)) = data.split_first() else { return };
    let whole = parse_in_blocks(form, form.len().max(1));
    assert_eq!(whole, parse_in_blocks(form, usize::from(*block_bytes).max(1)));
    let content_bytes: usize = whole.0.iter().map(|(_, content)| content.len()).sum();
    assert!(content_bytes <= form.len());
}

/// How a form ended.
#[derive(Debug, PartialEq, Eq)]
enum FormOutcome {
    Complete,
    Truncated,
    Malformed,
}

/// Returns field, file name and content of each part, and how the form ended.
#[expect(clippy::type_complexity, reason = "parts as the assertion above compares them")]
fn parse_in_blocks(form: &[u8], block_bytes: usize) -> (Vec<((String, Option<String>), Vec<u8>)>, FormOutcome) {
    let (mut parser, mut parts) = (MultipartParser::new("b"), Vec::new());
    for block in form.chunks(block_bytes) {
        parser.push(block);
        loop {
            match parser.next_event() {
                Ok(MultipartEvent::NeedsInput) => break,
                Ok(MultipartEvent::Part(part)) => parts.push(((part.field_name, part.file_name), Vec::new())),
                Ok(MultipartEvent::Chunk(chunk)) => {
                    assert!(!chunk.is_empty());
                    let Some((_, content)) = parts.last_mut() else { panic!("content without a part") };
                    content.extend_from_slice(&chunk);
                }
                Ok(MultipartEvent::PartEnd) => {}
                Ok(MultipartEvent::FormEnd) => return (parts, FormOutcome::Complete),
                Err(_) => return (parts, FormOutcome::Malformed),
            }
        }
    }
    (parts, FormOutcome::Truncated)
}
