//! Open files over SFTP, compared with an executable model: random requests of three sessions on one directory get the
//! answers, and leave the files, that the model predicts. Without rules the model is OpenSSH's sftp-server; with them
//! it is patgate. Single cases that are easier to read are in `tests/gateway/open_files.rs`.
//!
//! `HANDLES_SEQUENCES` sets the number of sequences for each configuration, `HANDLES_SEED` the seed that they are drawn
//! from.

#![allow(clippy::expect_used)]

mod cases;
mod driver;
mod file_system;
mod handle_requests;
mod locks;
mod model;
mod name_requests;
mod openssh;
mod patgate;
mod rules;
mod runner;
mod steps;
mod support;
mod uploads;
mod webdav;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use cases::{CASES, HandleCase};
use model::{HandleModel, ModelConfig, StepOutcome};
use openssh::OpenSshTarget;
use patgate::PatgateTarget;
use rules::{PatgateRule, RuleSet};
use runner::{ObservedNames, SftpTarget};
use steps::{ModelStep, SequenceShape, step_sequence};

const SEED: u64 = 0x5eed;
/// A user without rights, as whom servers are run beside root.
const UNPRIVILEGED_UID: u32 = 65534;

fn env_number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the cases that are written down, and tells all that fail.
fn run_cases<T: SftpTarget>(
    runtime: &tokio::runtime::Runtime,
    target: &mut T,
    setting: ModelConfig,
    suffix: &'static str,
) {
    let names = ObservedNames::new(suffix);
    let failed = CASES.iter().filter_map(|HandleCase { name, steps, .. }| {
        let steps: Vec<_> = steps().iter().map(|step| steps::step_with_suffix(step, suffix)).collect();
        let result = runtime.block_on(runner::run(target, setting, &names, &steps));
        result.err().map(|reason| format!("{name}: {reason}"))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Generates sequences and runs them; a failure is shrunk, and reported with its steps.
fn run_random_sequences<T: SftpTarget>(
    runtime: &tokio::runtime::Runtime,
    mut target: T,
    setting: ModelConfig,
    shape: SequenceShape,
    cases: u32,
) {
    run_cases(runtime, &mut target, setting, shape.suffix);
    let seed = env_number("HANDLES_SEED").unwrap_or(SEED);
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 4000,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let target = RefCell::new(target);
    let names = ObservedNames::new(shape.suffix);
    let run = |steps: &[ModelStep]| {
        let mut target = target.borrow_mut();
        let run = runner::run(&mut *target, setting, &names, steps);
        let limited = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), run).await });
        limited.unwrap_or_else(|_| Err("no end within a minute".to_owned()))
    };
    match runner.run(&step_sequence(shape), |steps| run(&steps).map_err(TestCaseError::fail)) {
        Ok(()) => {}
        Err(TestError::Fail(reason, steps)) => {
            let (reason, steps) = without_idle_steps(reason.to_string(), steps, run);
            panic!("seed {seed}: {reason}\nthe whole sequence: {steps:#?}")
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Leaves out of a sequence that fails every step without which it fails too: shrinking tries each of them once only.
fn without_idle_steps(
    mut reason: String,
    mut steps: Vec<ModelStep>,
    run: impl Fn(&[ModelStep]) -> Result<(), String>,
) -> (String, Vec<ModelStep>) {
    let mut at = 0;
    while at < steps.len() {
        let mut fewer = steps.clone();
        fewer.remove(at);
        match run(&fewer) {
            Err(other) => (reason, steps, at) = (other, fewer, 0),
            Ok(()) => at += 1,
        }
    }
    (reason, steps)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

fn sequences(usual: u32) -> u32 {
    env_number("HANDLES_SEQUENCES").map_or(usual, |number| u32::try_from(number).expect("a small number"))
}

fn assert_openssh_matches_model(superuser: bool) {
    let runtime = runtime();
    // Connections end by tasks of their own.
    let _context = runtime.enter();
    let user = (!superuser && rustix::process::geteuid().is_root()).then_some(UNPRIVILEGED_UID);
    let target = runtime.block_on(OpenSshTarget::start(&openssh::sftp_server_program(), user));
    let setting = ModelConfig { rules: RuleSet::NONE, superuser, text: false };
    run_random_sequences(
        &runtime,
        target,
        setting,
        SequenceShape { suffix: "", webdav: false, length: 60 },
        sequences(1000),
    );
}

#[test]
#[ignore = "needs OpenSSH's sftp-server"]
fn openssh_matches_the_model_without_rules_as_root() {
    if rustix::process::geteuid().is_root() {
        assert_openssh_matches_model(true);
    }
}

#[test]
#[ignore = "needs OpenSSH's sftp-server"]
fn openssh_matches_the_model_without_rules_as_unprivileged_user() {
    assert_openssh_matches_model(false);
}

/// The rules of a gateway that serves as root or not, by a token that is limited to text or not.
fn patgate_rules(superuser: bool, text: bool) -> RuleSet {
    let all = RuleSet::all();
    let all = if text { all } else { all.without(PatgateRule::EditsAreCopies) };
    if superuser { all.without(PatgateRule::ReplacesReadOnly) } else { all }
}

fn assert_patgate_matches_model(superuser: bool, text: bool) {
    let is_root = rustix::process::geteuid().is_root();
    if superuser && !is_root {
        return;
    }
    let runtime = runtime();
    // Connections end by tasks of their own.
    let _context = runtime.enter();
    let user = (!superuser && is_root).then_some(UNPRIVILEGED_UID);
    let options: &[&str] = if text { &["--mime", "text/plain"] } else { &[] };
    let target = runtime.block_on(PatgateTarget::start(user, options));
    let setting = ModelConfig { rules: patgate_rules(superuser, text), superuser, text };
    let suffix = if text { ".txt" } else { "" };
    run_random_sequences(&runtime, target, setting, SequenceShape { suffix, webdav: true, length: 60 }, sequences(500));
}

#[test]
fn patgate_matches_the_model_as_root() {
    assert_patgate_matches_model(true, false);
}

#[test]
fn patgate_matches_the_model_as_root_with_mime_limit() {
    assert_patgate_matches_model(true, true);
}

#[test]
fn patgate_matches_the_model_as_unprivileged_user() {
    assert_patgate_matches_model(false, false);
}

#[test]
fn patgate_matches_the_model_as_unprivileged_user_with_mime_limit() {
    assert_patgate_matches_model(false, true);
}

#[test]
fn every_rule_has_a_case_that_needs_it() {
    for rule in PatgateRule::ALL {
        let case = CASES.iter().find(|case| case.rule == Some(rule));
        let case = case.unwrap_or_else(|| panic!("{rule:?} has no case"));
        let text = rule == PatgateRule::EditsAreCopies;
        let all = patgate_rules(rule != PatgateRule::ReplacesReadOnly, text);
        let results = |rules| {
            let mut model =
                HandleModel::new(ModelConfig { rules, superuser: rule != PatgateRule::ReplacesReadOnly, text });
            let outcomes: Vec<_> = case.steps().iter().map(|step| model.apply(step)).collect();
            (outcomes, driver::model_tree(&model.files, |number| model.attributes(number)))
        };
        assert!(all.has(rule), "{rule:?}");
        assert_ne!(results(all), results(all.without(rule)), "{}: the same without {rule:?}", case.name);
    }
}

/// The kind of a step's request, and whether it was let through.
fn request_kind_and_success(step: &ModelStep, outcome: &StepOutcome) -> (String, bool) {
    let text = match step {
        ModelStep::Sftp(_, request) => format!("{request:?}"),
        ModelStep::WebDav(request) => format!("WebDav{request:?}"),
        ModelStep::DropSession(_) | ModelStep::EndChannel(_) => format!("{step:?}"),
    };
    let kind = text.split([' ', '(']).next().unwrap_or_default().to_owned();
    (kind, *outcome != StepOutcome::Refused)
}

#[test]
fn random_sequences_cover_success_and_refusal_of_every_request_kind() {
    let shape = SequenceShape { suffix: "", webdav: true, length: 60 };
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut counts = BTreeMap::<(String, bool), u32>::new();
    for _ in 0..2000 {
        let steps = step_sequence(shape).new_tree(&mut runner).expect("a sequence").current();
        let mut model =
            HandleModel::new(ModelConfig { rules: patgate_rules(true, false), superuser: true, text: false });
        for step in steps {
            let step = model.resolve(&step);
            if let Some(outcome) = model.apply(&step) {
                *counts.entry(request_kind_and_success(&step, &outcome)).or_default() += 1;
            }
        }
    }
    let never_refused = ["HandleStat", "Sync", "EndChannel", "WebDavUnlock", "session"];
    let kinds: BTreeSet<&String> = counts.keys().map(|(kind, _)| kind).collect();
    assert!(kinds.len() >= 30, "{counts:#?}");
    for kind in kinds {
        let number = |passed| counts.get(&(kind.clone(), passed)).copied().unwrap_or_default();
        let refused = never_refused.contains(&kind.as_str()) || number(false) >= 20;
        assert!(number(true) >= 20 && refused, "{kind}: {counts:#?}");
    }
}
