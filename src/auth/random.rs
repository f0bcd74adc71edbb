//! Random bytes from the operating system, and the ids and secrets that are drawn from them.

use crate::domain::{Secret, TokenId, TokenText};
use crate::store::StoreError;

/// Fills a buffer with random bytes from the operating system.
///
/// # Errors
/// [`StoreError::Random`] when the operating system gives none.
pub fn fill_random(buffer: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(buffer).map_err(|error| StoreError::Random(error.to_string()))
}

/// Generates a new token.
///
/// # Errors
/// [`StoreError::Random`] when the operating system gives no random bytes.
pub fn generate_token() -> Result<TokenText, StoreError> {
    generate_with(|draw| TokenText::new(TokenId::generate(draw), Secret::generate(draw)))
}

/// Generates the id of a new token.
///
/// # Errors
/// As [`generate_token`].
pub fn generate_token_id() -> Result<TokenId, StoreError> {
    generate_with(|draw| TokenId::generate(draw))
}

/// Generates a new secret.
///
/// # Errors
/// As [`generate_token`].
pub fn generate_secret() -> Result<Secret, StoreError> {
    generate_with(|draw| Secret::generate(draw))
}

fn generate_with<T>(generate: impl FnOnce(&mut dyn FnMut(&mut [u8])) -> T) -> Result<T, StoreError> {
    let mut result = Ok(());
    let value = generate(&mut |buffer| {
        if let Err(error) = fill_random(buffer) {
            // Defined bytes, so that the generator comes to its end. Its value is discarded for the error.
            buffer.fill(0);
            result = Err(error);
        }
    });
    result.map(|()| value)
}
