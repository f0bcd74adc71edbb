//! The style sheet, the script and the icon, compiled into the program.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header;

use super::error::ConsoleError;

const STYLE_SHEET: &str = include_str!("assets/console.css");
const SCRIPT: &str = include_str!("assets/console.js");
const ICON: &str = include_str!("assets/icon.svg");

/// URLs of the assets. Each holds a hash of the content, so that browsers may cache the asset for ever.
pub(super) struct AssetUrls {
    /// URL of the style sheet.
    pub(super) style: String,
    /// URL of the script.
    pub(super) script: String,
    /// URL of the icon.
    pub(super) icon: String,
}

/// URLs of the assets of this build.
pub(super) static ASSET_URLS: LazyLock<AssetUrls> = LazyLock::new(|| AssetUrls {
    style: asset_url(STYLE_SHEET, "css"),
    script: asset_url(SCRIPT, "js"),
    icon: asset_url(ICON, "svg"),
});

fn asset_url(content: &str, extension: &str) -> String {
    let hash = blake3::hash(content.as_bytes()).to_hex();
    format!("/console/assets/{}.{extension}", &hash[..16])
}

/// Serves an asset. An URL with the hash of another build is answered with 404.
pub(super) async fn serve(Path(name): Path<String>) -> Result<Response, ConsoleError> {
    let requested_url = format!("/console/assets/{name}");
    let assets = [
        (&ASSET_URLS.style, STYLE_SHEET, "text/css; charset=utf-8"),
        (&ASSET_URLS.script, SCRIPT, "text/javascript; charset=utf-8"),
        (&ASSET_URLS.icon, ICON, "image/svg+xml"),
    ];
    let (_, content, content_type) =
        assets.into_iter().find(|(address, ..)| **address == requested_url).ok_or(ConsoleError::NotFound)?;
    let headers =
        [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, content).into_response())
}
