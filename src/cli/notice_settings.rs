//! Settings of notices, as the gateway takes them.

use crate::config::{Settings, SmtpTlsSetting};
use crate::gateway::{MailSettings, NoticeSecret, NoticeSettings, NoticeTimings, SmtpTls};

/// Converts the settings of notices.
pub(super) fn notice_settings(settings: &Settings) -> NoticeSettings {
    let path = |file: &Option<crate::config::FilePath>| file.as_ref().map(|file| file.0.clone());
    NoticeSettings {
        kinds: settings.notice_kinds.0.clone(),
        expiry_days: settings.notice_expiry_days.0.clone(),
        min_free_bytes: settings.notice_free_space.bytes(),
        ca_file: path(&settings.notice_ca_file),
        webhook_urls: settings.webhook_urls.0.clone(),
        webhook_secret: NoticeSecret::of_webhooks(path(&settings.webhook_secret_file)),
        webhook_networks: settings.webhook_networks.0.clone(),
        mail: mail_settings(settings, NoticeSecret::of_mail(path(&settings.smtp_password_file))),
        timings: NoticeTimings::default(),
    }
}

/// Returns the mail server with sender and recipients; `None` unless all are given.
fn mail_settings(settings: &Settings, password: NoticeSecret) -> Option<MailSettings> {
    let (server, from) = settings.smtp_server.as_ref().zip(settings.mail_from.as_ref())?;
    let tls = match settings.smtp_tls {
        SmtpTlsSetting::StartTls => SmtpTls::StartTls,
        SmtpTlsSetting::Tls => SmtpTls::Implicit,
    };
    (!settings.mail_to.0.is_empty()).then(|| MailSettings {
        host: server.host.clone(),
        port: server.port,
        tls,
        login: settings.smtp_login.as_ref().map(|login| login.0.clone()),
        password,
        from: from.0.clone(),
        to: settings.mail_to.0.clone(),
    })
}
