//! librdkafka's `rdkafka_performance`, which `bench/clients/librdkafka` builds.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Found, Latency, Said, Sending, before, repository, run};
use crate::peer::Running;

/// Sends as fast as it can; the time of each record is from its hand-over to its acknowledgement.
pub(crate) fn rdkafka_produce(broker: &Running, sending: &Sending<'_>) -> Result<Found> {
    let Sending { topic, records, record_bytes, settings } = sending;
    let mut latencies = broker.data().as_os_str().to_owned();
    latencies.push(".latencies");
    let mut command = program(broker)?;
    command.args(["-P", "-t", topic, "-c", &records.to_string(), "-s", &record_bytes.to_string(), "-l", "-A"]);
    command.arg(&latencies).args(settings.iter().flat_map(|setting| ["-X", setting]));
    let mut found = run(broker, command, |text| produced(text, *records))?;
    found.latency_us = Some(percentiles(&fs::read_to_string(&latencies)?)?);
    fs::remove_file(&latencies)?;
    Ok(found)
}

/// Reads the whole topic from its beginning, as a group of one.
pub(crate) fn rdkafka_consume(broker: &Running, topic: &str, records: u64) -> Result<Found> {
    let mut command = program(broker)?;
    let group = format!("rdkafka-{:08x}", fastrand::u32(..));
    command.args(["-G", &group, "-t", topic, "-c", &records.to_string(), "-o", "beginning"]);
    run(broker, command, consumed)
}

/// Where the program is, built by now.
pub(super) fn fetch() -> Result<String> {
    let builder = repository().join("bench/clients/librdkafka");
    let output = Command::new(builder).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "bench/clients/librdkafka: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn program(broker: &Running) -> Result<Command> {
    let mut command = Command::new(fetch()?);
    command.args(["-q", "-b", &broker.address().to_string()]);
    Ok(command)
}

fn produced(text: &str, records: u64) -> Result<Said> {
    let line = text.lines().rfind(|line| line.contains(" delivered ")).context("no last line")?;
    ensure!(before(line, " delivered ")? as u64 == records, "not all records were delivered");
    said(line, " bytes), ")
}

fn consumed(text: &str) -> Result<Said> {
    said(text.lines().rfind(|line| line.contains(" consumed in ")).context("no last line")?, " bytes) ")
}

fn said(line: &str, bytes: &str) -> Result<Said> {
    Ok(Said {
        seconds: before(line, "ms:")? / 1000.0,
        records: before(line, " messages")? as u64,
        bytes: before(line, bytes)? as u64,
        latency_us: None,
    })
}

/// One number of microseconds on each line.
fn percentiles(text: &str) -> Result<Latency> {
    let mut all = text.lines().map(|line| Ok(line.trim().parse()?)).collect::<Result<Vec<f64>>>()?;
    ensure!(!all.is_empty(), "no latencies");
    all.sort_by(f64::total_cmp);
    let at = |of_a_thousand: usize| all[(all.len() * of_a_thousand / 1000).min(all.len() - 1)];
    Ok(Latency { mean: all.iter().sum::<f64>() / all.len() as f64, p50: at(500), p99: at(990), p999: at(999) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_lines_are_understood() {
        let text = "% Sending 20000 messages of size 100 bytes\n\
            % 20000 messages produced (2000000 bytes), 20000 delivered (offset 19999, 0 failed) in 518ms: \
            38584 msgs/s and 3.86 MB/s, 0 produce failures, 0 in queue, no compression\n";
        let expected = Said { seconds: 0.518, records: 20_000, bytes: 2_000_000, latency_us: None };
        assert_eq!(produced(text, 20_000).unwrap(), expected);
        assert!(produced(text, 20_001).is_err(), "records that were not delivered");

        let text = "% Group rebalanced (EAGER): 1 partition(s) revoked\n\
            % 22000 messages (2200000 bytes) consumed in 14ms: 1505611 msgs/s (150.56 MB/s)\n\
            % Average application fetch latency: 25us\n";
        let expected = Said { seconds: 0.014, records: 22_000, bytes: 2_200_000, latency_us: None };
        assert_eq!(consumed(text).unwrap(), expected);
    }

    #[test]
    fn percentiles_are_of_the_sorted_lines() {
        let text: String = (1..=1000).rev().map(|micros| format!("{micros}\n")).collect();
        let latency = Latency { mean: 500.5, p50: 501.0, p99: 991.0, p999: 1000.0 };
        assert_eq!(percentiles(&text).unwrap(), latency);
        assert!(percentiles("").is_err());
        assert!(percentiles("fast\n").is_err());
    }
}
