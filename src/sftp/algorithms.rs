//! Algorithms that are offered to SSH clients, and russh's configuration.

use std::borrow::Cow;
use std::time::Duration;

use russh::client::GexParams;
use russh::kex::dh::groups::{DH_GROUP14, DH_GROUP15, DH_GROUP16, DhGroup};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::{HostKeys, SftpOptions, SshCertificates};

/// Identification string (RFC 4253 section 4.2). libssh and asyncssh look for `OpenSSH` in it to choose the order of
/// SYMLINK's arguments.
const IDENTIFICATION: &str = concat!("SSH-2.0-patgate_", env!("CARGO_PKG_VERSION"), " OpenSSH_9.9-compatible");
/// Size of the channel window (RFC 4254 section 5.2).
const CHANNEL_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// Key exchange methods in order of preference. The NIST curves are for JSch, which supports nothing newer. Group
/// exchange (RFC 4419) is for clients without any other method that avoids SHA-1, such as WS_FTP and paramiko before
/// 2.2; it comes last since it takes one more round trip. The fixed groups of 4096 and 8192 bits are left out: they
/// cost more than all others, and no client depends on them.
const KEX_ALGORITHMS: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G14_SHA256,
    kex::DH_GEX_SHA256,
    // Not methods but markers: ext-info (RFC 8308), and strict key exchange against Terrapin (CVE-2023-48795).
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const HOST_KEY_ALGORITHMS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    // RSA with SHA-2 only (RFC 8332): `ssh-rsa` signs with SHA-1.
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];
const CIPHERS: &[cipher::Name] = &[
    // No CBC mode: the CTR ciphers are for clients without an AEAD cipher.
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];
/// MAC algorithms in order of preference. The last two are for libssh2 before 1.11 (in curl and PHP) and for JSch,
/// which support no other MAC and no AEAD cipher.
const MAC_ALGORITHMS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

/// Groups for group exchange, smallest first: those of RFC 3526, so that none is ever generated. A larger one would
/// cost an unauthenticated client nothing, and the server ten times the work of the largest here.
const GEX_GROUPS: [&DhGroup; 3] = [&DH_GROUP14, &DH_GROUP15, &DH_GROUP16];

/// Returns the group for a group exchange: the smallest of at least the preferred size, else the largest that the
/// client accepts (RFC 4419 section 3); `None` when it accepts none.
pub(super) fn gex_group(request: &GexParams) -> Option<DhGroup> {
    let accepted = || {
        GEX_GROUPS
            .into_iter()
            .filter(|group| (request.min_group_size()..=request.max_group_size()).contains(&group.bit_size()))
    };
    // Both searches rely on the ascending order of `GEX_GROUPS`.
    let preferred = accepted().find(|group| group.bit_size() >= request.preferred_group_size());
    preferred.or_else(|| accepted().next_back()).cloned()
}

/// Returns the authentication methods: an SSH key where tokens have some, a token as password, or as the response to one
/// keyboard-interactive prompt.
pub(super) fn auth_methods(with_keys: bool) -> MethodSet {
    let methods = [MethodKind::PublicKey, MethodKind::Password, MethodKind::KeyboardInteractive];
    MethodSet::from(&methods[usize::from(!with_keys)..])
}

/// Returns the idle time after which a keepalive is sent; `None` if keepalives are disabled.
///
/// It is at least the login timeout: russh sends keepalives before the login too, when a client may take a global
/// request for a protocol error (RFC 4252 section 6).
pub(super) fn keepalive_interval(options: &SftpOptions) -> Option<Duration> {
    (!options.keepalive_interval.is_zero()).then(|| options.keepalive_interval.max(options.login_timeout))
}

/// Returns russh's configuration for these host keys, their certificates, and options.
pub(super) fn server_config(keys: &HostKeys, certificates: &SshCertificates, options: &SftpOptions) -> Config {
    Config {
        server_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        methods: auth_methods(false),
        // `handler` delays the rejection of a wrong token itself; keys and `none` are rejected at once.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: keys.keys(),
        certificates: certificates.host().to_vec(),
        limits: Limits::new(options.rekey_bytes, options.rekey_bytes, options.rekey_after),
        window_size: CHANNEL_WINDOW_BYTES,
        maximum_packet_size: 32 * 1024,
        channel_buffer_size: 256,
        event_buffer_size: 64,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX_ALGORITHMS),
            key: Cow::Borrowed(HOST_KEY_ALGORITHMS),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MAC_ALGORITHMS),
            // None: a few compressed bytes can expand to a thousand times their size.
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::default()
        },
        // `handler` counts attempts: russh would count `none` and keys as wrong tokens.
        max_auth_attempts: 0,
        // `connection` has timeouts of its own, which also hold while russh's loop is blocked.
        inactivity_timeout: None,
        keepalive_interval: keepalive_interval(options),
        // `connection` ends clients that don't answer: russh's own counter stops while its loop is blocked.
        keepalive_max: 0,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_exchange_selects_smallest_acceptable_group() {
        // Smallest, preferred and largest size that a client asks for.
        for (request, chosen) in [
            ((2048, 2048, 8192), Some(2048)),
            ((2048, 4096, 8192), Some(4096)),
            ((2048, 2500, 3072), Some(3072)),
            ((2048, 8192, 8192), Some(4096)),
            ((2048, 3000, 3000), Some(2048)),
            ((6144, 8192, 8192), None),
        ] {
            let (smallest, preferred, largest) = request;
            let params = GexParams::new(smallest, preferred, largest).expect("a request");
            assert_eq!(gex_group(&params).map(|group| group.bit_size()), chosen, "{request:?}");
        }
    }
}
