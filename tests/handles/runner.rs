//! Runs a sequence against a server and the model, and compares them after every step.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::driver::{differences, differs_only_in_link_counts, host_tree, model_tree, outcome_matches};
use crate::file_system::BASE_NAME;
use crate::model::{HandleModel, ModelConfig, StepOutcome};
use crate::steps::{CHANNELS, ModelStep, SESSIONS, SftpRequest, WebDavRequest, with_suffix};

/// Time in which a directory that was removed as a whole has to be emptied, which takes names from its files.
const LINK_COUNT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server with three sessions over one directory.
pub(crate) trait SftpTarget {
    /// Prepares an empty directory for a sequence.
    async fn reset(&mut self) -> Result<(), String>;
    /// The directory of the host that is compared with the root of the model.
    fn root(&self) -> PathBuf;
    async fn request(&mut self, channel: usize, request: &SftpRequest) -> Result<StepOutcome, String>;
    /// Breaks the connection of a session, waits for the server to notice, and connects again.
    async fn drop_session(&mut self, session: usize) -> Result<(), String>;
    /// Ends a channel in order, waits for the server to end it, and opens another.
    async fn end_channel(&mut self, channel: usize) -> Result<(), String>;
    /// Tells whether there is a WebDAV client beside the sessions; its steps are left out otherwise.
    fn has_web_dav(&self) -> bool;
    /// Sends a request of the WebDAV client.
    async fn web_dav(&mut self, request: &WebDavRequest, expected: &StepOutcome) -> Result<StepOutcome, String>;
    /// Checks what a sequence must not leave behind, when no handle is open.
    fn check_debris(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The paths that sessions are asked about.
pub(crate) struct ObservedNames {
    stat: Vec<String>,
    list: Vec<String>,
}

impl ObservedNames {
    pub(crate) fn new(suffix: &str) -> Self {
        let named = |path: &&str| with_suffix(path, suffix);
        let stat = ["a", "b", "c", "l", "m", "d", "e", "d/a", "d/b", "d/l", "d/e", "d/e/a", "e/a", "l/a"];
        let mut list: Vec<String> = ["d", "e", "d/e"].iter().map(named).collect();
        list.push(format!("../{BASE_NAME}"));
        Self { stat: stat.iter().map(named).collect(), list }
    }
}

/// A sequence that is under way.
struct SequenceRun<'a, T> {
    target: &'a mut T,
    model: HandleModel,
    names: &'a ObservedNames,
    log: String,
}

/// Runs a sequence; an error tells the steps and the first difference.
pub(crate) async fn run(
    target: &mut impl SftpTarget,
    setting: ModelConfig,
    names: &ObservedNames,
    steps: &[ModelStep],
) -> Result<(), String> {
    target.reset().await?;
    let mut run = SequenceRun { target, model: HandleModel::new(setting), names, log: String::new() };
    let result = run.run(steps).await;
    if let Err(difference) = result {
        let log = run.log;
        // The next sequence begins with sessions that have nothing open.
        for session in 0..SESSIONS {
            target.drop_session(session).await?;
        }
        return Err(format!("{difference}\nafter\n{log}"));
    }
    Ok(())
}

impl<T: SftpTarget> SequenceRun<'_, T> {
    async fn run(&mut self, steps: &[ModelStep]) -> Result<(), String> {
        for step in steps {
            self.step(step).await?;
        }
        self.compare_all_stats(&[0, 2, 3]).await?;
        for channel in 0..CHANNELS {
            while !self.model.handles[channel].is_empty() {
                self.step(&ModelStep::Sftp(channel, SftpRequest::Close { handle: 0 })).await?;
            }
        }
        self.compare_all_stats(&[1]).await?;
        self.target.check_debris()
    }

    /// Carries a step out on both sides and compares the answers and the trees.
    async fn step(&mut self, step: &ModelStep) -> Result<(), String> {
        if matches!(step, ModelStep::WebDav(_)) && !self.target.has_web_dav() {
            return Ok(());
        }
        let step = &self.model.resolve(step);
        let Some(expected) = self.model.apply(step) else { return Ok(()) };
        let _ = writeln!(self.log, "  {step:?} => {expected:?}");
        let found = match step {
            ModelStep::Sftp(channel, request) => self.target.request(*channel, request).await?,
            ModelStep::DropSession(session) => self.target.drop_session(*session).await.map(|()| StepOutcome::Done)?,
            ModelStep::EndChannel(channel) => self.target.end_channel(*channel).await.map(|()| StepOutcome::Done)?,
            ModelStep::WebDav(request) => self.target.web_dav(request, &expected).await?,
        };
        if !outcome_matches(&expected, &found) {
            return Err(format!("{step:?}\n  expected {expected:?}\n  found    {found:?}"));
        }
        self.compare_trees(step).await?;
        // The two sessions that work most are asked what they see where something was done.
        let ModelStep::Sftp(_, request) = step else { return Ok(()) };
        match request.path() {
            Some(path) => self.compare_stats(&[1, 2], [SftpRequest::Stat { path: path.to_owned() }].into_iter()).await,
            None => Ok(()),
        }
    }

    async fn compare_trees(&self, step: &ModelStep) -> Result<(), String> {
        let expected = model_tree(&self.model.files, |number| self.model.attributes(number));
        let end = Instant::now() + LINK_COUNT_TIMEOUT;
        loop {
            let found = host_tree(&self.target.root());
            let differences = differences(&expected, &found);
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() > end || !differs_only_in_link_counts(&expected, &found) {
                return Err(format!("the tree after {step:?}\n{}", differences.join("\n")));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Compares what sessions see under every name.
    async fn compare_all_stats(&mut self, channels: &[usize]) -> Result<(), String> {
        let stats = self.names.stat.iter().map(|path| SftpRequest::Stat { path: path.clone() });
        let lists = self.names.list.iter().map(|path| SftpRequest::List { path: path.clone() });
        self.compare_stats(channels, stats.chain(lists)).await
    }

    /// Compares what channels are answered to requests that change nothing.
    async fn compare_stats(
        &mut self,
        channels: &[usize],
        requests: impl Iterator<Item = SftpRequest> + Clone,
    ) -> Result<(), String> {
        for channel in channels {
            for request in requests.clone() {
                let expected = self.model.apply(&ModelStep::Sftp(*channel, request.clone()));
                let found = self.target.request(*channel, &request).await?;
                if !expected.as_ref().is_some_and(|expected| outcome_matches(expected, &found)) {
                    let step = ModelStep::Sftp(*channel, request);
                    return Err(format!("look of {step:?}\n  expected {expected:?}\n  found    {found:?}"));
                }
            }
        }
        Ok(())
    }
}
