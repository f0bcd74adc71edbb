//! The system user that runs a command on the state directory, as the audit trail records it.

use std::fs;

use crate::tokens::Principal;

/// The users of this machine, one per line: `NAME:PASSWORD:UID:…`.
const PASSWD: &str = "/etc/passwd";

/// Returns the principal of the user that runs this program.
pub(super) fn principal() -> Principal {
    // The real user id, not the effective one: the audit trail is about who started the program, also if it is
    // set-user-id.
    let uid = rustix::process::getuid().as_raw();
    let passwd = fs::read(PASSWD).unwrap_or_default();
    let name = user_name(uid, &String::from_utf8_lossy(&passwd)).unwrap_or_else(|| uid.to_string());
    // A name that is not valid in the audit trail is replaced by the number.
    name.parse().or_else(|_| uid.to_string().parse()).map_or(Principal::Administrator, Principal::SystemUser)
}

/// Looks up the name of a user id.
fn user_name(uid: u32, passwd: &str) -> Option<String> {
    let mut users = passwd.lines().map(|line| line.split(':'));
    users.find_map(|mut fields| {
        let (name, _, uid_field) = (fields.next()?, fields.next()?, fields.next()?);
        (uid_field.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_name_is_found_by_uid() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\ncarol:x:1001:1001::/home/carol:/bin/sh\n";
        assert_eq!(user_name(1001, passwd).as_deref(), Some("carol"));
        assert_eq!(user_name(0, passwd).as_deref(), Some("root"));
        assert_eq!(user_name(7, passwd), None);
    }
}
