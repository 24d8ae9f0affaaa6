//! S2: `kill -9` while producers write, and how long until a consumer reads again.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::P2;
use crate::contest::Contest;
use crate::load::Outcome;
use crate::peer::Profile;
use crate::report::Figure;

const PARTITIONS: u32 = 16;
const FIGURE: &str = "start to first fetch";
/// Batches a second; the rate at which every broker can fill.
const RATE: f64 = 12_000.0;
/// No broker takes longer to fill.
const PATIENCE: u64 = 600;

pub(super) fn s2(contest: &mut Contest) -> Result<()> {
    contest.start(Profile::Default)?;
    let gb = contest.pace.recovery_gb;
    let rounds = contest.pace.rounds.min(2);
    let figures = vec![Figure::lower(FIGURE, "s").times(3.0, 10.0)];
    contest.cell(rounds, &format!("{gb} GB"), P2, figures, |side| {
        let topic = side.create(PARTITIONS)?;
        let load = format!("{P2} --partitions {PARTITIONS} --rate {RATE} --warmup 0 --seconds {PATIENCE}");
        let mut producer = side.spawn("produce", &topic, &load)?;
        let before = side.stored();
        while (side.stored().saturating_sub(before) as f64) < gb * 1e9 {
            ensure!(producer.try_wait()?.is_none(), "the producers ended early");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        side.broker.kill()?;
        producer.kill()?;
        producer.wait()?;
        let began = Instant::now();
        side.broker.restart()?;
        // Of all partitions, so that the last one to come back is among them.
        let load = format!("--connections 1 --partitions {PARTITIONS} --warmup 0 --bytes {}", 16 << 20);
        let reader = side.spawn("fetch", &topic, &load)?;
        side.report(reader)?;
        let seconds = began.elapsed().as_secs_f64();
        side.delete(&topic)?;
        Ok(Outcome::default().with(FIGURE, seconds))
    });
    Ok(())
}
