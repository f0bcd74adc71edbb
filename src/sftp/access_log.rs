//! Lines of the access log for one SFTP session: one for each request, but one for all requests on a handle together, from
//! its OPEN to its CLOSE. What is taken from each request is in [`super::logged_request`].

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::auth::Session;
use crate::telemetry::{
    FinishedOperation, LoginResult, OperationDetails, OperationKind, OperationRecorder, OperationStatus,
    SftpRequestName,
};

use super::error::SftpStatus;

/// Version of the protocol, as the combined format shows it.
const SFTP_VERSION: &str = "SFTP/3";

/// What all lines of a session have in common.
pub(super) struct SessionLog {
    recorder: Arc<OperationRecorder>,
    /// A template, with the fields of the session.
    session: OperationDetails,
}

/// Use of a handle that is logged as one operation, when it is closed or dropped.
pub(super) struct HandleLog {
    log: Arc<SessionLog>,
    name: SftpRequestName,
    path: Vec<u8>,
    opened_at: SystemTime,
    started_at: Instant,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
    status: OperationStatus,
}

impl SessionLog {
    /// Returns the log of a session; `None` where there is no access log.
    pub(super) fn new(recorder: &Arc<OperationRecorder>, session: &Session) -> Option<Arc<Self>> {
        let peer = session.peer();
        recorder.is_logging().then(|| {
            let session = OperationDetails {
                user: Some(session.login().clone()),
                token: Some(session.token()),
                ..details_without_session(recorder, peer.address, peer.user_agent.clone())
            };
            Arc::new(Self { recorder: Arc::clone(recorder), session })
        })
    }

    /// Writes the line of an operation of the session.
    pub(super) fn log(
        &self,
        operation: &FinishedOperation,
        started_at: SystemTime,
        path: Option<Vec<u8>>,
        target: Option<Vec<u8>>,
    ) {
        self.recorder.log(operation, &OperationDetails { started_at, path, target, ..self.session.clone() });
    }
}

/// Reports an attempt to log in, and logs it where there is an access log.
pub(super) fn record_login(
    recorder: &OperationRecorder,
    (address, client): (std::net::IpAddr, Option<String>),
    outcome: std::result::Result<&Session, SftpStatus>,
    started_at: Instant,
) {
    let (status, login) = match outcome {
        Ok(_) => (SftpStatus::Ok, Some(LoginResult::Accepted)),
        Err(SftpStatus::PermissionDenied) => (SftpStatus::PermissionDenied, Some(LoginResult::Refused)),
        Err(status) => (status, None),
    };
    let operation = FinishedOperation {
        kind: OperationKind::Sftp(SftpRequestName::Login),
        status: OperationStatus::Sftp(status.code()),
        received_bytes: 0,
        sent_bytes: 0,
        duration: started_at.elapsed(),
    };
    recorder.record(&operation);
    if let Some(user) = outcome.ok().and_then(|session| recorder.user_operations(session.login())) {
        user.count(&operation);
    }
    if recorder.is_logging() {
        let details = details_without_session(recorder, address, client);
        let session = outcome.ok();
        let (user, token) = (session.map(|session| session.login().clone()), session.map(Session::token));
        recorder.log(&operation, &OperationDetails { user, token, login, ..details });
    }
}

fn details_without_session(
    recorder: &OperationRecorder,
    address: std::net::IpAddr,
    client: Option<String>,
) -> OperationDetails {
    OperationDetails {
        started_at: SystemTime::now(),
        request_id: recorder.next_request_id(),
        address,
        user: None,
        token: None,
        login: None,
        path: None,
        target: None,
        client,
        version: SFTP_VERSION,
    }
}

impl HandleLog {
    /// Begins the log of a handle that is opened now.
    pub(super) fn new(log: &Arc<SessionLog>, name: SftpRequestName, path: Vec<u8>) -> Box<Self> {
        let (opened_at, started_at) = (SystemTime::now(), Instant::now());
        // Without a CLOSE the connection was lost.
        let status = OperationStatus::Aborted;
        let log = Arc::clone(log);
        Box::new(Self { log, name, path, opened_at, started_at, received_bytes: 0, sent_bytes: 0, status })
    }

    /// Returns the path by which the handle was opened.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Sets the status of the CLOSE, or of the OPEN that failed.
    pub(super) fn finish(mut self, status: SftpStatus) {
        self.status = OperationStatus::Sftp(status.code());
    }
}

impl Drop for HandleLog {
    fn drop(&mut self) {
        let operation = FinishedOperation {
            kind: OperationKind::Sftp(self.name),
            status: self.status,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            duration: self.started_at.elapsed(),
        };
        self.log.log(&operation, self.opened_at, Some(std::mem::take(&mut self.path)), None);
    }
}
