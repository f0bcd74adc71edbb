//! Guides for libraries and tools of scripts.

use super::connection_details::ConnectionDetails;
use super::shell::read_token_step;
use super::{GuideStep, GuideText};

/// Note on the options of paramiko that disable public keys.
const PASSWORD_ONLY_NOTE: &str = "look_for_keys=False and allow_agent=False have the token offered alone; give no key_filename \
    or pkey either. After a key, paramiko asks for the login service anew, which this server can't answer: it ends the \
    connection and says so (paramiko's log has the words).";

pub(super) fn paramiko(details: &ConnectionDetails) -> GuideText {
    let script = format!(
        "import os\n\n\
         import paramiko\n\n\
         client = paramiko.SSHClient()\n\
         client.load_system_host_keys()\n\
         client.connect({:?}, port={}, username={:?}, password=os.environ[\"TOKEN\"],\n               \
         look_for_keys=False, allow_agent=False)\n\
         with client.open_sftp() as sftp:\n    \
         sftp.put(os.path.expanduser(\"~/Documents/letter.odt\"), \"letter.odt\")\n    \
         print(*sftp.listdir(\".\"))\n\
         client.close()\n",
        details.sftp_hostname(),
        details.sftp_port(),
        details.login().as_str()
    );
    let steps = vec![
        GuideStep::file(
            "Write a script; here it copies a document, and lists the folder",
            "~/patgate_paramiko.py",
            script,
        ),
        read_token_step(),
        GuideStep::command("Run it", "TOKEN=\"$TOKEN\" python3 ~/patgate_paramiko.py"),
    ];
    let notes = vec![
        PASSWORD_ONLY_NOTE.into(),
        "Connect once with sftp before, so that the host key is known.".into(),
        "For another token after a wrong one, connect anew.".into(),
    ];
    (steps, notes)
}

pub(super) fn fsspec(details: &ConnectionDetails) -> GuideText {
    let script = format!(
        "import os\n\n\
         import fsspec\n\n\
         files = fsspec.filesystem(\"sftp\", host={:?}, port={}, username={:?},\n                          \
         password=os.environ[\"TOKEN\"], look_for_keys=False, allow_agent=False)\n\
         files.put(os.path.expanduser(\"~/Documents/letter.odt\"), \"letter.odt\")\n\
         print(*files.ls(\".\", detail=False))\n",
        details.sftp_hostname(),
        details.sftp_port(),
        details.login().as_str()
    );
    let steps = vec![
        GuideStep::file(
            "Write a script; here it copies a document, and lists the folder",
            "~/patgate_fsspec.py",
            script,
        ),
        read_token_step(),
        GuideStep::command("Run it", "TOKEN=\"$TOKEN\" python3 ~/patgate_fsspec.py"),
    ];
    let notes = vec![
        PASSWORD_ONLY_NOTE.into(),
        "fsspec takes whatever host key it meets: use it on a network that you trust, or WebDAV over TLS (webdav4)."
            .into(),
    ];
    (steps, notes)
}

pub(super) fn ansible(details: &ConnectionDetails) -> GuideText {
    let playbook = format!(
        "- name: Copy a document to the gateway\n  \
           hosts: localhost\n  \
           gather_facts: false\n  \
           tasks:\n    \
             - name: Over WebDAV\n      \
               ansible.builtin.uri:\n        \
                 url: \"{url}letter.odt\"\n        \
                 method: PUT\n        \
                 src: \"{{{{ lookup('env', 'HOME') }}}}/Documents/letter.odt\"\n        \
                 url_username: \"{login}\"\n        \
                 url_password: \"{{{{ lookup('env', 'TOKEN') }}}}\"\n        \
                 force_basic_auth: true\n        \
                 status_code: [201, 204]\n    \
             - name: Or over SFTP\n      \
               ansible.builtin.command:\n        \
                 argv:\n          \
                   - lftp\n          \
                   - --env-password\n          \
                   - -u\n          \
                   - \"{login}\"\n          \
                   - -e\n          \
                   - set cmd:fail-exit yes; put Documents/letter.odt -o letter-sftp.odt; bye\n          \
                   - sftp://{host}:{port}\n        \
                 chdir: \"{{{{ lookup('env', 'HOME') }}}}\"\n      \
               environment:\n        \
                 LFTP_PASSWORD: \"{{{{ lookup('env', 'TOKEN') }}}}\"\n",
        url = details.url(),
        login = details.login(),
        host = details.sftp_host(),
        port = details.sftp_port()
    );
    let steps = vec![
        GuideStep::file("Write a playbook, with one of the two tasks", "~/patgate.yml", playbook),
        read_token_step(),
        GuideStep::command("Run it", "TOKEN=\"$TOKEN\" ansible-playbook ~/patgate.yml"),
    ];
    let notes = vec![
        "The tasks run on the machine that has the file, not with the gateway as a host: Ansible's connections ssh and \
         paramiko run commands on the other side, and this server runs none."
            .into(),
        "The second task takes lftp; connect once with sftp before, so that the host key is known.".into(),
    ];
    (steps, notes)
}
