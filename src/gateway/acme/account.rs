//! The account at the certificate authority, whose key is kept in the state directory.

use instant_acme::{Account, AccountBuilder, AccountCredentials, NewAccount};

use super::error::AcmeError;
use super::state_files::AcmeStateFiles;
use crate::gateway::settings::AcmeSettings;
use crate::net;

/// Opens the account of earlier starts, or creates one. The authority's terms are agreed to by the configuration.
pub(super) async fn open(settings: &AcmeSettings, files: &AcmeStateFiles) -> Result<Account, AcmeError> {
    if let Some(text) = files.read_account(&settings.directory)? {
        let credentials: AccountCredentials =
            serde_json::from_str(&text).map_err(|error| AcmeError::Protocol(error.into()))?;
        return Ok(builder(settings)?.from_credentials(credentials).await?);
    }
    let contact = settings.contact.as_ref().map(|address| format!("mailto:{address}"));
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) = builder(settings)?.create(&new, settings.directory.clone(), None).await?;
    let text = serde_json::to_string(&credentials).map_err(|error| AcmeError::Protocol(error.into()))?;
    files.write_account(&settings.directory, &text)?;
    Ok(account)
}

fn builder(settings: &AcmeSettings) -> Result<AccountBuilder, AcmeError> {
    net::install_default_crypto_provider();
    Ok(match &settings.ca_file {
        Some(file) => Account::builder_with_root(file)?,
        None => Account::builder()?,
    })
}
