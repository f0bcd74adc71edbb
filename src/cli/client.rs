//! `patgate client`: guides for connecting with a client.

use clap::Args;
use serde_json::json;

use super::context::CommandContext;
use super::{CommandError, Result, output};
use crate::domain::Login;
use crate::domain::client_guides::{self, ClientGuide, ClientProgram, GuideCode};

/// Print how to connect with a client; without a name, list the clients
#[derive(Debug, Args)]
#[command(
    name = "client",
    after_help = "Examples:
  patgate client
  patgate client rclone --url https://files.example.org/dav/ --user alice
  patgate client sshfs --url https://files.example.org/dav/ --user alice --sftp files.example.org:2022"
)]
pub(super) struct ClientCommand {
    /// Name of the client; `patgate client` lists them
    #[arg(requires_all = ["url", "user"])]
    name: Option<ClientProgram>,
    /// The gateway's WebDAV address, as clients reach it
    #[arg(long, value_name = "URL", requires = "name")]
    url: Option<String>,
    /// The user that connects
    #[arg(short, long, value_name = "LOGIN", requires = "name")]
    user: Option<Login>,
    /// Address of the SFTP server [default: the host of --url, port 2022]
    #[arg(long, value_name = "HOST:PORT", requires = "name")]
    sftp: Option<String>,
}

impl ClientCommand {
    /// Prints the guide, or the list.
    pub(super) fn run(self, context: &CommandContext) -> Result {
        let (Some(client), Some(url), Some(login)) = (self.name, self.url, self.user) else {
            return list_clients(context);
        };
        let connection = client_guides::ConnectionDetails::new(&url, self.sftp.as_deref(), login)
            .map_err(|error| CommandError::usage(error.to_string()).with_hint("give the address that clients use"))?;
        let guide = client_guides::client_guide(client, &connection);
        if context.prints_json() { output::print_json(&guide) } else { output::print_line(&format_guide(&guide)) }
    }
}

fn list_clients(context: &CommandContext) -> Result {
    if context.prints_json() {
        let clients = ClientProgram::ALL
            .map(|client| json!({ "name": client.name(), "title": client.title(), "tried": client.is_tested() }));
        return output::print_json(&clients);
    }
    let tested = |client: ClientProgram| if client.is_tested() { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = ClientProgram::ALL
        .into_iter()
        .map(|client| [client.name().to_owned(), tested(client), client.title().to_owned()])
        .collect();
    output::print_table(["NAME", "TESTED", "CLIENT"], &rows)
}

/// Formats a guide for people: numbered steps, with commands and files indented.
fn format_guide(guide: &ClientGuide) -> String {
    let note = if guide.tried { "" } else { " (not tested by patgate's own checks)" };
    let mut lines = vec![format!("{}{note}", guide.title)];
    for (number, step) in (1..).zip(&guide.steps) {
        lines.push(String::new());
        lines.push(match &step.code {
            None => format!("{number}. {}", step.text),
            Some(GuideCode::Command { .. }) => format!("{number}. {}:", step.text),
            Some(GuideCode::File { file, .. }) => format!("{number}. {} (in {file}):", step.text),
        });
        let code = match &step.code {
            None => "",
            Some(GuideCode::Command { command: code } | GuideCode::File { content: code, .. }) => code,
        };
        if !code.is_empty() {
            lines.push(String::new());
            lines.extend(code.lines().map(|line| format!("    {line}")));
        }
    }
    if !guide.notes.is_empty() {
        lines.push(String::new());
        lines.extend(guide.notes.iter().map(|note| format!("- {note}")));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guide(client: ClientProgram) -> ClientGuide {
        let login = "alice".parse().expect("a login");
        client_guides::client_guide(
            client,
            &client_guides::ConnectionDetails::new("https://files.example.org", None, login).expect("a site"),
        )
    }

    #[test]
    fn guide_numbers_its_steps_and_indents_commands() {
        let page = format_guide(&guide(ClientProgram::Davfs2));
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines[0], "davfs2");
        assert!(lines[2].starts_with("1. ") && lines[2].ends_with("(in ~/.davfs2/davfs2.conf):"), "{page}");
        assert_eq!(lines[4], "    buf_size 256");
        assert!(lines.iter().any(|line| line.starts_with("4. ")), "{page}");
    }

    #[test]
    fn untested_client_guide_says_so() {
        for client in ClientProgram::ALL {
            let says = format_guide(&guide(client)).lines().next().is_some_and(|line| line.contains("not tested"));
            assert_eq!(says, !client.is_tested(), "{client}");
        }
    }
}
