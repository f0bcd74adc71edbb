//! Runs a sequence against a server and the model, and compares them after every step.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::driver::{answers, differences, host_tree, is_same_but_links, model_tree};
use crate::file_system::BASE_NAME;
use crate::model::{Model, Outcome, Setting};
use crate::operations::{CHANNELS, Request, SESSIONS, Step, WebDav, with_suffix};

/// Time in which a directory that was removed as a whole has to be emptied, which takes names from its files.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// A server with three sessions over one directory.
pub(crate) trait Target {
    /// Prepares an empty directory for a sequence.
    async fn begin(&mut self) -> Result<(), String>;
    /// The directory of the host that is compared with the root of the model.
    fn root(&self) -> PathBuf;
    async fn request(&mut self, channel: usize, request: &Request) -> Result<Outcome, String>;
    /// Breaks the connection of a session, waits for the server to notice, and connects again.
    async fn cut(&mut self, session: usize) -> Result<(), String>;
    /// Ends a channel in order, waits for the server to end it, and opens another.
    async fn end_channel(&mut self, channel: usize) -> Result<(), String>;
    /// Tells whether there is a WebDAV client beside the sessions; its steps are left out otherwise.
    fn has_web_dav(&self) -> bool;
    /// Sends a request of the WebDAV client.
    async fn web_dav(&mut self, request: &WebDav, expected: &Outcome) -> Result<Outcome, String>;
    /// Checks what a sequence must not leave behind, when no handle is open.
    fn check_debris(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The paths that sessions are asked about.
pub(crate) struct Names {
    stat: Vec<String>,
    list: Vec<String>,
}

impl Names {
    pub(crate) fn new(suffix: &str) -> Self {
        let named = |path: &&str| with_suffix(path, suffix);
        let stat = ["a", "b", "c", "l", "m", "d", "e", "d/a", "d/b", "d/l", "d/e", "d/e/a", "e/a", "l/a"];
        let mut list: Vec<String> = ["d", "e", "d/e"].iter().map(named).collect();
        list.push(format!("../{BASE_NAME}"));
        Self { stat: stat.iter().map(named).collect(), list }
    }
}

/// A sequence that is under way.
struct Run<'a, T> {
    target: &'a mut T,
    model: Model,
    names: &'a Names,
    log: String,
}

/// Runs a sequence; an error tells the steps and the first difference.
pub(crate) async fn run(
    target: &mut impl Target,
    setting: Setting,
    names: &Names,
    steps: &[Step],
) -> Result<(), String> {
    target.begin().await?;
    let mut run = Run { target, model: Model::new(setting), names, log: String::new() };
    let result = run.run(steps).await;
    if let Err(difference) = result {
        let log = run.log;
        // The next sequence begins with sessions that have nothing open.
        for session in 0..SESSIONS {
            target.cut(session).await?;
        }
        return Err(format!("{difference}\nafter\n{log}"));
    }
    Ok(())
}

impl<T: Target> Run<'_, T> {
    async fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for step in steps {
            self.step(step).await?;
        }
        self.look_everywhere(&[0, 2, 3]).await?;
        for channel in 0..CHANNELS {
            while !self.model.handles[channel].is_empty() {
                self.step(&Step::Sftp(channel, Request::Close { handle: 0 })).await?;
            }
        }
        self.look_everywhere(&[1]).await?;
        self.target.check_debris()
    }

    /// Carries a step out on both sides and compares the answers and the trees.
    async fn step(&mut self, step: &Step) -> Result<(), String> {
        if matches!(step, Step::WebDav(_)) && !self.target.has_web_dav() {
            return Ok(());
        }
        let step = &self.model.resolve(step);
        let Some(expected) = self.model.apply(step) else { return Ok(()) };
        let _ = writeln!(self.log, "  {step:?} => {expected:?}");
        let found = match step {
            Step::Sftp(channel, request) => self.target.request(*channel, request).await?,
            Step::Cut(session) => self.target.cut(*session).await.map(|()| Outcome::Done)?,
            Step::EndChannel(channel) => self.target.end_channel(*channel).await.map(|()| Outcome::Done)?,
            Step::WebDav(request) => self.target.web_dav(request, &expected).await?,
        };
        if !answers(&expected, &found) {
            return Err(format!("{step:?}\n  expected {expected:?}\n  found    {found:?}"));
        }
        self.compare_trees(step).await?;
        // The two sessions that work most are asked what they see where something was done.
        let Step::Sftp(_, request) = step else { return Ok(()) };
        match request.path() {
            Some(path) => self.look(&[1, 2], [Request::Stat { path: path.to_owned() }].into_iter()).await,
            None => Ok(()),
        }
    }

    async fn compare_trees(&self, step: &Step) -> Result<(), String> {
        let expected = model_tree(&self.model.files, |number| self.model.attributes(number));
        let end = Instant::now() + LINK_PATIENCE;
        loop {
            let found = host_tree(&self.target.root());
            let differences = differences(&expected, &found);
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() > end || !is_same_but_links(&expected, &found) {
                return Err(format!("the tree after {step:?}\n{}", differences.join("\n")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Compares what sessions see under every name.
    async fn look_everywhere(&mut self, channels: &[usize]) -> Result<(), String> {
        let stats = self.names.stat.iter().map(|path| Request::Stat { path: path.clone() });
        let lists = self.names.list.iter().map(|path| Request::List { path: path.clone() });
        self.look(channels, stats.chain(lists)).await
    }

    /// Compares what channels are answered to requests that change nothing.
    async fn look(
        &mut self,
        channels: &[usize],
        requests: impl Iterator<Item = Request> + Clone,
    ) -> Result<(), String> {
        for channel in channels {
            for request in requests.clone() {
                let expected = self.model.apply(&Step::Sftp(*channel, request.clone()));
                let found = self.target.request(*channel, &request).await?;
                if !expected.as_ref().is_some_and(|expected| answers(expected, &found)) {
                    let step = Step::Sftp(*channel, request);
                    return Err(format!("look of {step:?}\n  expected {expected:?}\n  found    {found:?}"));
                }
            }
        }
        Ok(())
    }
}
