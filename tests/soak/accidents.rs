//! What happens to the gateway while clients use it: kills, restarts, reloads, full disks, steps of the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::gateway_process::GatewayProcess;
use crate::history::Outcome;
use crate::random::Random;
use crate::recorder::Recorder;

/// Largest step of the clock in either direction.
const CLOCK_STEP_SECONDS: usize = 3600;

/// Lets accidents happen until told to stop; the gateway is ready at the end.
pub(crate) fn run(gateway: &GatewayProcess, recorder: &Arc<Recorder>, stop: &AtomicBool, seed: u64) {
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let pause = Duration::from_millis(500 + random.below(5000) as u64);
        std::thread::sleep(pause);
        let start = recorder.now();
        let kind = match random.below(100) {
            0..40 => {
                gateway.kill();
                restart(gateway, recorder);
                "kill -9 and restart"
            }
            40..50 => {
                gateway.terminate();
                restart(gateway, recorder);
                "SIGTERM and restart"
            }
            50..70 => {
                if !gateway.reload() {
                    recorder.fault("the gateway has ended by itself or by SIGHUP");
                    restart(gateway, recorder);
                }
                "SIGHUP"
            }
            70..85 if gateway.has_small_disk() => {
                fill_disk(gateway, recorder, &mut random);
                "full disk"
            }
            85.. if gateway.has_clock() => {
                let seconds = i64::try_from(random.below(2 * CLOCK_STEP_SECONDS)).expect("short");
                gateway.shift_clock(seconds - i64::try_from(CLOCK_STEP_SECONDS).expect("short"));
                "clock step"
            }
            _ => continue,
        };
        recorder.count(kind, recorder.since(start), Outcome::Acknowledged);
    }
}

fn fill_disk(gateway: &GatewayProcess, recorder: &Recorder, random: &mut Random) {
    gateway.fill_disk();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        // What clients delete is taken as well.
        gateway.fill_disk();
    }
    if random.percent(30) {
        gateway.kill();
        restart(gateway, recorder);
    }
    gateway.empty_disk();
}

fn restart(gateway: &GatewayProcess, recorder: &Recorder) {
    let start = recorder.now();
    match gateway.restart() {
        Ok(_) => recorder.count("start until READY", recorder.since(start), Outcome::Acknowledged),
        Err(why) => {
            recorder.fault(why);
            gateway.empty_disk();
            if let Err(why) = gateway.restart() {
                recorder.fault(format!("nor with an empty disk: {why}"));
            }
        }
    }
}
