//! Kafka's `ProducerPerformance`, `ConsumerPerformance` and `EndToEndLatency`.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Found, Latency, Said, Sending, before, repository, run};
use crate::peer::Running;

/// Sends as fast as it can.
pub(crate) fn producer_performance(broker: &Running, sending: &Sending<'_>) -> Result<Found> {
    let Sending { topic, records, record_bytes, settings } = sending;
    let mut command = tool("ProducerPerformance");
    command.args(["--bootstrap-server", &broker.address().to_string(), "--topic", topic, "--throughput", "-1"]);
    command.args(["--num-records", &records.to_string(), "--record-size", &record_bytes.to_string()]);
    if !settings.is_empty() {
        command.arg("--command-property").args(*settings);
    }
    run(broker, command, |text| produced(text, *records, *record_bytes))
}

/// Reads a topic from its beginning.
pub(crate) fn consumer_performance(broker: &Running, topic: &str, records: u64) -> Result<Found> {
    let mut command = tool("ConsumerPerformance");
    command.args(["--bootstrap-server", &broker.address().to_string(), "--topic", topic]);
    command.args(["--num-records", &records.to_string()]);
    run(broker, command, consumed)
}

/// One record at a time, from its producer to its consumer. Its percentiles are whole milliseconds.
pub(crate) fn end_to_end_latency(broker: &Running, topic: &str, records: u64, record_bytes: u64) -> Result<Found> {
    let mut command = tool("EndToEndLatency");
    command.args(["--bootstrap-server", &broker.address().to_string(), "--topic", topic, "--producer-acks", "all"]);
    command.args(["--num-records", &records.to_string(), "--record-size", &record_bytes.to_string()]);
    run(broker, command, |text| to_and_fro(text, records, record_bytes))
}

/// As Kafka's scripts start its load generators.
fn tool(name: &str) -> Command {
    let mut command = Command::new("java");
    let compat = repository().join("compat");
    command.args(["-Xmx512M", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", compat.join("kafka/log4j2.properties").display()));
    command.arg("-cp").arg(compat.join(".cache/java/libs/*")).arg(format!("org.apache.kafka.tools.{name}"));
    command
}

/// The last line; those before it are of intervals.
fn produced(text: &str, records: u64, record_bytes: u64) -> Result<Said> {
    let line = text.lines().rfind(|line| line.contains("99.9th")).context("no last line")?;
    ensure!(before(line, " records sent")? as u64 == records, "not all records were sent");
    let micros = |unit| Ok::<_, anyhow::Error>(before(line, unit)? * 1000.0);
    Ok(Said {
        seconds: records as f64 / before(line, " records/sec")?,
        records,
        bytes: records * record_bytes,
        latency_us: Some(Latency {
            mean: micros(" ms avg")?,
            p50: micros(" ms 50th")?,
            p99: micros(" ms 99th")?,
            p999: micros(" ms 99.9th")?,
        }),
    })
}

/// A header and a line, both with commas.
fn consumed(text: &str) -> Result<Said> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("start.time"));
    let (names, values) = (lines.next().context("no header")?, lines.next().context("no line")?);
    let field = |name: &str| -> Result<f64> {
        let place = names.split(", ").position(|it| it == name).with_context(|| format!("no {name}"))?;
        Ok(values.split(", ").nth(place).context("a short line")?.parse()?)
    };
    Ok(Said {
        seconds: field("fetch.time.ms")? / 1000.0,
        records: field("data.consumed.in.nMsg")? as u64,
        bytes: (field("data.consumed.in.MB")? * 1024.0 * 1024.0) as u64,
        latency_us: None,
    })
}

fn to_and_fro(text: &str, records: u64, record_bytes: u64) -> Result<Said> {
    let after = |name: &str| -> Result<f64> {
        let (_, rest) = text.split_once(name).with_context(|| format!("no {name}"))?;
        let word = rest.split([' ', ',', '\n']).find(|word| !word.is_empty()).context("no number")?;
        Ok(word.parse::<f64>()? * 1000.0)
    };
    let mean = after("Avg latency:")?;
    let latency = Latency { mean, p50: after("50th =")?, p99: after("99th =")?, p999: after("99.9th =")? };
    let seconds = mean * records as f64 / 1e6;
    Ok(Said { seconds, records, bytes: records * record_bytes, latency_us: Some(latency) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_producers_last_line_counts() {
        let text = "9268 records sent, 1851.7 records/sec (0.18 MB/sec), 862.9 ms avg latency, 3923.0 ms max latency.\n\
            20000 records sent, 3526.093089 records/sec (0.34 MB/sec), 963.35 ms avg latency, 3923.00 ms max latency, \
            1006 ms 50th, 1183 ms 95th, 1233 ms 99th, 1239 ms 99.9th.\n";
        let said = produced(text, 20_000, 100).unwrap();
        assert_eq!((said.records, said.bytes), (20_000, 2_000_000));
        assert!((said.seconds - 5.672).abs() < 0.001);
        let latency = Latency { mean: 963_350.0, p50: 1_006_000.0, p99: 1_233_000.0, p999: 1_239_000.0 };
        assert_eq!(said.latency_us, Some(latency));
        assert!(produced(text, 20_001, 100).is_err(), "records that were not sent");
    }

    #[test]
    fn the_consumers_fields_are_found_by_their_names() {
        let text = "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, \
            rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n\
            2026-11-21 18:15:58:606, 2026-11-21 18:15:59:328, 1.9290, 2.6717, 20227, 28015.2355, 639, 83, 23.2409, \
            243698.7952\n";
        let said = consumed(text).unwrap();
        assert_eq!(said, Said { seconds: 0.083, records: 20_227, bytes: 2_022_703, latency_us: None });
        assert!(consumed("WARNING: no records were read\n").is_err());
    }

    #[test]
    fn to_and_fro_is_in_microseconds() {
        let text = "0\t315.151903\nAvg latency: 4.4307 ms\nPercentiles: 50th = 2, 99th = 21, 99.9th = 315\n";
        let said = to_and_fro(text, 300, 100).unwrap();
        let latency = Latency { mean: 4430.7, p50: 2000.0, p99: 21_000.0, p999: 315_000.0 };
        assert_eq!(said.latency_us, Some(latency));
        assert!((said.seconds - 1.329).abs() < 0.001);
    }
}
