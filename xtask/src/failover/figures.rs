//! What a run comes to: how long writes were away when a leader was killed, and when a node was restarted in order.
//!
//! All of it is read off the history, for each client by itself: a record that is sent after the kill and acknowledged
//! in a partition says that its writes are back there.

use serde::Serialize;

use crate::torture::checker::history::{History, Process, Time};
use crate::torture::checker::{Harm, Numbers, Verdict};
use crate::torture::report::{Quantiles, Writes, examples};

/// Who was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Victim {
    Leader,
    LeaderAndController,
}

/// A node that was killed.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub(super) victim: Victim,
    /// Before the signal, and when nothing of the process was left.
    pub(super) began: Time,
    pub(super) gone: Time,
    /// The partitions it led.
    pub(super) led: Vec<String>,
}

/// A node that was restarted, from the signal until all copies were in sync again and all clients wrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Restart {
    pub(super) began: Time,
    pub(super) ended: Time,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) what: &'static str,
    pub(super) client: String,
    pub(super) ms: Quantiles,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) broker: String,
    pub(super) figures: Vec<Figure>,
    pub(super) sent: usize,
    pub(super) acknowledged: usize,
    /// Given up by a client after all its retries, or never answered.
    pub(super) failed: usize,
    pub(super) lost: usize,
    /// Anything else that is wrong with the history, in words.
    pub(super) anomalies: Vec<String>,
    pub(super) left_out: Vec<String>,
}

impl Report {
    pub(super) fn of(
        history: &History,
        verdict: &Verdict,
        clients: &[(Process, &str)],
        kills: &[Kill],
        restarts: &[Restart],
    ) -> Report {
        let mut figures = Vec::new();
        let writes = |process: Process| Writes::of(history, |of| of == process);
        let all: Vec<(&str, Writes)> = clients.iter().map(|(process, name)| (*name, writes(*process))).collect();
        let lines = all.iter().map(|it| (it.0, std::slice::from_ref(it))).chain([("all", all.as_slice())]);
        for (client, writes) in lines.filter(|(client, _)| *client != "all" || all.len() > 1) {
            let mut line = |what, times: Vec<Time>| {
                if !times.is_empty() {
                    figures.push(Figure { what, client: client.to_owned(), ms: Quantiles::of(times) });
                }
            };
            let back = |is: &dyn Fn(&Kill) -> bool| -> Vec<Time> {
                let kills = kills.iter().filter(|kill| is(kill));
                kills.flat_map(|kill| writes.iter().map(|(_, writes)| kill.back(writes))).collect()
            };
            line("leader killed", back(&|kill| kill.victim == Victim::Leader));
            line("leader and controller killed", back(&|kill| kill.victim == Victim::LeaderAndController));
            line("either killed", back(&|_| true));
            let pauses = |it: &Restart| -> Vec<Time> {
                writes.iter().flat_map(|(_, writes)| writes.silences(it.began, it.ended)).collect()
            };
            line("node restarted: pause of a partition", restarts.iter().flat_map(pauses).collect());
        }
        figures.sort_by_key(|figure| ORDER.iter().position(|what| *what == figure.what));
        let Numbers { sent, acknowledged, failed, unknown, .. } = verdict.numbers;
        Report {
            seed: 0,
            broker: String::new(),
            figures,
            sent,
            acknowledged,
            failed: failed + unknown,
            lost: verdict.count(Harm::Lost),
            anomalies: examples(verdict).into_values().flatten().collect(),
            left_out: Vec::new(),
        }
    }

    /// A run in which nothing was acknowledged proves nothing.
    pub(super) fn is_good(&self) -> bool {
        self.anomalies.is_empty() && self.failed == 0 && self.acknowledged > 0
    }

    pub(super) fn print(&self) {
        self.anomalies.iter().for_each(|anomaly| println!("{anomaly}"));
        self.left_out.iter().for_each(|left_out| println!("left out: {left_out}"));
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::ASCII_MARKDOWN);
        table.set_header(["milliseconds", "client", "times", "p50", "p99", "p99.9", "max"]);
        for Figure { what, client, ms } in &self.figures {
            let number = |ms: f64| format!("{ms:.0}");
            let [p50, p99, p999, max] = [ms.p50, ms.p99, ms.p999, ms.max].map(number);
            table.add_row([(*what).to_owned(), client.clone(), ms.count.to_string(), p50, p99, p999, max]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        println!("{table}");
        println!(
            "{} of {} acknowledged, {} failed after all retries, {} lost, {} other anomalies",
            self.acknowledged,
            self.sent,
            self.failed,
            self.lost,
            self.anomalies.len().saturating_sub(self.lost)
        );
    }
}

const ORDER: [&str; 4] =
    ["leader killed", "leader and controller killed", "either killed", "node restarted: pause of a partition"];

impl Kill {
    /// From the kill until something sent after it was acknowledged in every partition that the node had led; without
    /// an end if that never was.
    fn back(&self, writes: &Writes) -> Time {
        let is_led = |key: &str| self.led.iter().any(|led| led == key);
        writes.back(self.gone, is_led).map_or(Time::MAX, |after| self.gone - self.began + after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torture::checker::{self, Limits};

    #[test]
    fn a_client_is_back_when_what_it_sent_after_the_kill_is_acknowledged_wherever_the_node_led() {
        // Both write to both partitions every 10; a-0's leader is killed at 1000 and a-1's is not. What was sent before
        // is acknowledged late, and is no proof. Client 2 needs longer.
        let lines = "1 send 990000 990000 a-0=1.0\n1 send 990000 990000 a-1=2.0\n1 ack 995000 a-1@0=2.0\n\
            2 send 990000 990000 a-0=3.0\n2 ack 991000 a-0@1=3.0\n\
            1 send 1005000 1005000 a-0=1.1\n1 send 1005000 1005000 a-1=2.1\n1 ack 1006000 a-1@1=2.1\n\
            2 send 1010000 1010000 a-0=3.1\n\
            1 ack 1003000 a-0@0=1.0\n1 ack 1400000 a-0@2=1.1\n2 ack 1700000 a-0@3=3.1\n\
            9 final 2000000 2000001 a-0 0 4 0=1.0 1=3.0 2=1.1 3=3.1\n9 final 2000000 2000001 a-1 0 2 0=2.0 1=2.1";
        let history = History::read(lines.as_bytes()).unwrap();
        let verdict = checker::check(&history, Limits::default());
        let kill = |victim, began: Time| {
            let led = vec!["a-0".to_owned()];
            Kill { victim, began, gone: began + 4_000, led }
        };
        let kills = [kill(Victim::Leader, 1_000_000)];
        let restarts = [Restart { began: 1_000_000, ended: 1_500_000 }];
        let clients = [(1, "one"), (2, "two")];
        let report = Report::of(&history, &verdict, &clients, &kills, &restarts);
        let shown = |what: &str, client: &str| {
            let found = report.figures.iter().find(|figure| figure.what == what && figure.client == client);
            found.map(|figure| (figure.ms.count, figure.ms.p50, figure.ms.max))
        };
        assert_eq!(shown("leader killed", "one"), Some((1, 400.0, 400.0)));
        assert_eq!(shown("leader killed", "two"), Some((1, 700.0, 700.0)));
        assert_eq!(shown("leader killed", "all"), Some((2, 400.0, 700.0)));
        assert_eq!(shown("leader and controller killed", "one"), None);
        // a-0 from 1003 to 1400 and a-1 from 1000 to 1006 on the one, a-0 from 1000 to 1700 on the other.
        assert_eq!(shown(ORDER[3], "one"), Some((2, 6.0, 397.0)));
        assert_eq!(shown(ORDER[3], "two"), Some((1, 700.0, 700.0)));
        assert!(report.is_good(), "{report:?}");
        // A kill after which nothing comes back is not left out.
        let late = [kill(Victim::LeaderAndController, 1_020_000)];
        let report = Report::of(&history, &verdict, &clients[..1], &late, &[]);
        assert!(report.figures[0].ms.max > 1e12, "{report:?}");
    }

    #[test]
    fn what_is_given_up_or_gone_makes_a_bad_run() {
        let read = |lines: &str| {
            let history = History::read(lines.as_bytes()).unwrap();
            let verdict = checker::check(&history, Limits::default());
            Report::of(&history, &verdict, &[(1, "one")], &[], &[])
        };
        let good = "1 send 10 10 a-0=1.0\n1 ack 20 a-0@0=1.0\n";
        let end = "9 final 90 91 a-0 0 1 0=1.0";
        assert!(read(&format!("{good}{end}")).is_good());
        let failed = read(&format!("{good}1 send 30 30 a-0=1.1\n1 fail 40 UNKNOWN a-0=1.1\n{end}"));
        assert_eq!((failed.is_good(), failed.failed, failed.lost), (false, 1, 0));
        let lost = read(&format!("{good}1 send 30 30 a-0=1.1\n1 ack 40 a-0@1=1.1\n9 final 90 91 a-0 0 2 1=1.1"));
        assert_eq!((lost.is_good(), lost.failed), (false, 0), "{lost:?}");
    }
}
