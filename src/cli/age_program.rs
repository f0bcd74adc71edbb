//! The program `age` (age-encryption.org), by which backups are encrypted and decrypted. It is run, and not a library: that
//! would need a second version of most of the cryptography that this program is built from.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{CommandError, Result};

/// First bytes of an encrypted file (format of age, version 1).
pub(super) const AGE_MAGIC: &[u8] = b"age-encryption.org/";

/// Encrypts what `write` writes to `output`, for each of the recipients (`age1…`, or an SSH public key).
///
/// # Errors
/// [`CommandError`] where `age` is missing or refuses a recipient; errors of `write`.
pub(super) fn encrypt(
    recipients: &[String],
    output: impl Into<Stdio>,
    write: impl FnOnce(&mut dyn Write) -> Result,
) -> Result {
    let mut command = Command::new("age");
    command.arg("--encrypt");
    for recipient in recipients {
        command.arg("--recipient").arg(recipient);
    }
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(output))?;
    let mut input = child.stdin.take().ok_or_else(|| CommandError::new("age takes no input"))?;
    let written = write(&mut input);
    drop(input);
    // The reason of the program comes first: it ends before it has read all, if it refuses a recipient.
    finish(child, "encrypt the backup")?;
    written
}

/// Has `read` read what `input` holds, decrypted with the identity in a file. What was read counts only if this succeeds:
/// a changed end is noticed last.
///
/// # Errors
/// [`CommandError`] where `age` is missing, the identity is another one, or the file was changed; errors of `read`.
pub(super) fn decrypt<T>(
    identity: &Path,
    input: impl Into<Stdio>,
    read: impl FnOnce(&mut ChildStdout) -> Result<T>,
) -> Result<T> {
    let mut command = Command::new("age");
    command.arg("--decrypt").arg("--identity").arg(identity);
    let mut child = spawn(command.stdin(input).stdout(Stdio::piped()))?;
    let mut output = child.stdout.take().ok_or_else(|| CommandError::new("age gives no output"))?;
    let value = read(&mut output);
    drop(output);
    match (value, finish(child, "decrypt the backup")) {
        (Ok(value), finished) => finished.map(|()| value),
        // A program that refuses gives nothing to read, or only a part; its reason is the one that helps.
        (Err(_), Err(refused)) => Err(refused),
        (Err(error), Ok(())) => Err(error),
    }
}

fn spawn(command: &mut Command) -> Result<Child> {
    command.stderr(Stdio::piped()).spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CommandError::new("the program age is not installed").with_hint(
            "install it (Debian: apt-get install age), or encrypt with another program: patgate admin backup - | …",
        ),
        _ => CommandError::new(format!("the program age can't be run: {error}")),
    })
}

/// Waits for the end of the program, and returns what it says where it fails.
fn finish(mut child: Child, action: &str) -> Result {
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    if child.wait()?.success() {
        return Ok(());
    }
    let reason = said.lines().next().unwrap_or("it gives no reason").trim_start_matches("age: error: ");
    Err(CommandError::new(format!("age can't {action}: {reason}")).with_hint("nothing was changed"))
}
