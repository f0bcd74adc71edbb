//! Checks of notices: what waits, and whether receivers take it.

use super::check::{CheckStatus, DoctorCheck, check};
use crate::store::{NoticeReceiverState, Store};

/// Checks the queue of each receiver that the last server had.
pub(super) fn check_notices(store: &Store) -> Vec<DoctorCheck> {
    match store.notice_receivers() {
        Ok(receivers) => receivers.iter().map(check_receiver).collect(),
        Err(error) => vec![check("notices", CheckStatus::Fail, error.to_string())],
    }
}

fn check_receiver(receiver: &NoticeReceiverState) -> DoctorCheck {
    let NoticeReceiverState { name, queued, delivered, dropped, .. } = receiver;
    let counts = format!("{name}: {queued} queued, {delivered} delivered, {dropped} dropped");
    match (receiver.is_failing(), receiver.failed_at, &receiver.failure) {
        (true, Some(failed_at), Some(failure)) => check(
            "notices",
            CheckStatus::Warning,
            format!("{counts}; the last attempt failed at {failed_at}: {failure}"),
        ),
        _ => check("notices", CheckStatus::Ok, counts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::UnixMillis;

    #[test]
    fn receiver_whose_last_attempt_failed_is_a_warning_with_its_failure() {
        let mut receiver = NoticeReceiverState {
            name: "mail ops@example.org".to_owned(),
            queued: 2,
            delivered: 1,
            failed: 1,
            dropped: 0,
            delivered_at: Some(UnixMillis::from_millis(1)),
            failed_at: Some(UnixMillis::from_millis(2)),
            failure: Some("refused".to_owned()),
        };
        let found = check_receiver(&receiver);
        assert_eq!(found.status, CheckStatus::Warning);
        assert!(found.detail.starts_with("mail ops@example.org: 2 queued") && found.detail.ends_with(": refused"));
        receiver.delivered_at = Some(UnixMillis::from_millis(3));
        assert_eq!(check_receiver(&receiver).status, CheckStatus::Ok);
    }
}
