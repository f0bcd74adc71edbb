//! The figures of a run, as text.

use std::fmt::Write;

use crate::gateway_process::ResourceSample;
use crate::history::History;
use crate::recorder::Recorder;

/// Bounds on what the process has, whatever its clients do.
const MAX_RESIDENT_KIB: u64 = 600 * 1024;
const MAX_DESCRIPTORS: usize = 2000;
const MAX_THREADS: u64 = 300;

/// What the process had, once a minute and at the ends of the run.
#[derive(Default)]
pub(crate) struct ResourceLog(Vec<(u64, ResourceSample)>);

impl ResourceLog {
    pub(crate) fn add(&mut self, recorder: &Recorder, sample: ResourceSample) {
        let seconds = recorder.now() / 1_000_000;
        println!("{seconds:>6} s: {sample:?}");
        if sample.resident_kib > MAX_RESIDENT_KIB
            || sample.descriptors > MAX_DESCRIPTORS
            || sample.threads > MAX_THREADS
        {
            recorder.fault(format!("more than the gateway may need: {sample:?}"));
        }
        self.0.push((seconds, sample));
    }
}

/// Returns all figures of a run.
pub(crate) fn format_figures(recorder: &Recorder, history: &History, resources: &ResourceLog) -> String {
    let mut text = String::from("operation                         acknowledged   refused   unknown   longest ms\n");
    for (kind, figures) in recorder.operation_figures() {
        let (acknowledged, refused) = (figures.acknowledged, figures.refused);
        let (unknown, longest) = (figures.unknown, figures.longest / 1000);
        let _ = writeln!(text, "{kind:<34} {acknowledged:>11} {refused:>9} {unknown:>9} {longest:>12}");
    }
    let (changes, observations) = (history.changes.len(), history.observations.len());
    let _ = writeln!(text, "checked: {observations} observations of {changes} changes");
    if let (Some((_, first)), Some((_, last))) = (resources.0.first(), resources.0.last()) {
        let _ = writeln!(text, "first: {first:?}\nlast:  {last:?}");
    }
    text
}
